import { execFileSync } from 'node:child_process'
import { expect, it } from 'vitest'
import { readToml, stringOf, tomlOf, writeToml } from './toml'

const RECIPE = `# what the run is called (text; default "unnamed")
name = "fast # not a comment"

# a section
[grid]
# edge = 3 in a comment is no key
pixel_mm = 1.2
  size_px=192

[net]
options = {width = 24, names = ["a", "b = c"]}
`

it('reads keys with their section, and nothing from comments', () => {
  expect([...readToml(RECIPE)]).toEqual([
    ['name', '"fast # not a comment"'],
    ['grid.pixel_mm', '1.2'],
    ['grid.size_px', '192'],
    ['net.options', '{width = 24, names = ["a", "b = c"]}'],
  ])
})

it('writes what it read', () => {
  const values = readToml(RECIPE)
  expect(readToml(writeToml(values))).toEqual(values)
  expect(writeToml(values).startsWith('name = ')).toBe(true)
})

it('writes JSON values that Python reads as the same', () => {
  const value = { text: 'a "b" \\ ї', list: [1, 2.5, true], table: { x: 1e-5, y: [] } }
  const text = Object.entries(value).map(([key, one]) => `${key} = ${tomlOf(one)}`).join('\n')
  const code = 'import json, sys, tomllib; print(json.dumps(tomllib.loads(sys.stdin.read())))'
  const read = execFileSync('python3', ['-c', code], { input: text, env: { ...process.env, PYTHONUTF8: '1' } })
  expect(JSON.parse(read.toString())).toEqual(value)
})

it('reads strings', () => {
  expect(stringOf('"a \\"b\\""')).toBe('a "b"')
  expect(stringOf("'C:\\x'")).toBe('C:\\x')
  expect(stringOf('[1]')).toBe('[1]')
})
