/** Recipes as TOML, line by line: values stay as they are written, so that nothing is lost in between.
 *
 * The server writes each value on one line (`hemotorch recipe NAME`), so that a line is a section, a key or a comment.
 */

/** "section.key" to its value as written, in the file's order. */
export function readToml(text: string): Map<string, string> {
  const values = new Map<string, string>()
  let section = ''
  for (const line of text.split('\n')) {
    const head = /^\s*\[([\w.-]+)\]\s*$/.exec(line)
    if (head?.[1]) section = `${head[1]}.`
    const entry = /^\s*([\w-]+)\s*=\s*(.+?)\s*$/.exec(line)
    if (entry?.[1] && entry[2] && !line.trimStart().startsWith('#')) values.set(section + entry[1], entry[2])
  }
  return values
}

/** A file with those values; keys without a section first. */
export function writeToml(values: Map<string, string>): string {
  const sections = new Map<string, string[]>([['', []]])
  for (const [key, value] of values) {
    const dot = key.lastIndexOf('.')
    const section = dot < 0 ? '' : key.slice(0, dot)
    const lines = sections.get(section) ?? []
    lines.push(`${key.slice(dot + 1)} = ${value}`)
    sections.set(section, lines)
  }
  const blocks = [...sections].map(([name, lines]) => [...(name ? [`[${name}]`] : []), ...lines].join('\n'))
  return `${blocks.filter(Boolean).join('\n\n')}\n`
}

/** A JSON value as TOML on one line. */
export function tomlOf(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(tomlOf).join(', ')}]`
  if (typeof value === 'object' && value !== null) {
    return `{${Object.entries(value).map(([key, one]) => `${key} = ${tomlOf(one)}`).join(', ')}}`
  }
  // JSON's strings, numbers and booleans are TOML's
  return JSON.stringify(value)
}

/** The text in a TOML string; as it is if it is none. */
export function stringOf(written: string): string {
  if (/^'[^']*'$/.test(written)) return written.slice(1, -1)
  try {
    const value: unknown = JSON.parse(written)
    return typeof value === 'string' ? value : written
  } catch {
    return written
  }
}
