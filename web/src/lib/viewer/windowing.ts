// Windows: HU to grey by a table of all 65,536 int16 values, so that a slice costs one look-up per pixel.

export interface Window {
  level: number
  width: number
}

export interface NamedWindow extends Window {
  name: string
}

/** The windows of the keys 1 to 6. The same as `WINDOWS` in hemotorch/hu.py, which states their sources. */
export const WINDOWS: readonly NamedWindow[] = [
  { name: 'brain-narrow', level: 40, width: 80 },
  { name: 'subdural', level: 75, width: 215 },
  { name: 'stroke', level: 32, width: 8 },
  { name: 'bone', level: 600, width: 2800 },
  { name: 'soft', level: 50, width: 350 },
  { name: 'brain', level: 40, width: 120 },
]

const OFFSET = 32768
const OPAQUE = 0xff000000

/** Grey 0 to 255 of a value in HU, computed in float32 and rounded half to even, as `to_grey` in hu.py does. */
export function grey(hu: number, { level, width }: Window): number {
  const low = Math.fround(level - width / 2)
  const share = Math.fround(Math.fround(hu - low) / Math.fround(width))
  return roundHalfEven(Math.fround(Math.min(1, Math.max(0, share)) * 255))
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1
  return floor % 2 === 0 ? floor : floor + 1
}

/** (65,536,) opaque greys as little-endian RGBA, by HU + 32768. */
export function greyTable(window: Window): Uint32Array {
  const table = new Uint32Array(65536)
  for (let index = 0; index < 65536; index++) {
    const value = grey(index - OFFSET, window)
    table[index] = (OPAQUE | (value << 16) | (value << 8) | value) >>> 0
  }
  return table
}

/** HU to pixels. hu and pixels have the same length. */
export function paintGrey(hu: Int16Array, table: Uint32Array, pixels: Uint32Array): void {
  for (let index = 0; index < hu.length; index++) pixels[index] = table[hu[index]! + OFFSET]!
}

/** The window after a drag of dx, dy screen pixels: right widens, down darkens. Steps grow with the width. */
export function draggedWindow(start: Window, dx: number, dy: number): Window {
  const step = Math.max(0.25, start.width / 300)
  const width = Math.min(10000, Math.max(1, start.width + dx * step))
  const level = Math.min(4000, Math.max(-2000, start.level + dy * step))
  return { level: Math.round(level), width: Math.round(width) }
}
