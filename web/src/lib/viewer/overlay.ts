// Masks over an image: fills as RGBA pixels, outlines as the edges between pixels, probability as heat.

export type Rgb = readonly [number, number, number]

/** Colours by mask code. The types' are those of `COLOURS` in hemotorch/labels.py, untyped that of pictures/slices.py. */
export const CODE_RGB: readonly Rgb[] = [
  [0, 0, 0],
  [235, 150, 20], // epidural
  [235, 70, 45], // intraparenchymal
  [20, 125, 255], // intraventricular
  [240, 225, 60], // subarachnoid
  [190, 110, 200], // subdural
  [255, 80, 225], // bleeding of unknown type
]
export const TRUTH_RGB: Rgb = [70, 230, 110]
export const CODE_NAMES = [
  '',
  'epidural',
  'intraparenchymal',
  'intraventricular',
  'subarachnoid',
  'subdural',
  'untyped',
] as const
export const CODE_SHORT = ['', 'EDH', 'IPH', 'IVH', 'SAH', 'SDH', 'ICH'] as const
export const UNTYPED = 6

export function css(rgb: Rgb): string {
  return `rgb(${rgb[0]} ${rgb[1]} ${rgb[2]})`
}

function packed(rgb: Rgb, alpha: number): number {
  return ((alpha << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]) >>> 0
}

/** Codes to RGBA pixels of full colour, transparent if 0; opacity is applied when the image is drawn. */
export function paintFill(mask: Uint8Array, pixels: Uint32Array, colours: readonly Rgb[] = CODE_RGB): void {
  const table = new Uint32Array(256)
  for (let code = 1; code < 256; code++) table[code] = packed(colours[code] ?? CODE_RGB[UNTYPED]!, 255)
  for (let index = 0; index < mask.length; index++) pixels[index] = table[mask[index]!]!
}

/** Probabilities 0 to 255 to RGBA: from transparent over dark red and yellow to white. */
export function paintProbability(probability: Uint8Array, pixels: Uint32Array): void {
  for (let index = 0; index < probability.length; index++) pixels[index] = HEAT[probability[index]!]!
}

/** Black body: red rises first, then green, then blue; alpha with the probability, none below 4 %. */
const HEAT = Uint32Array.from({ length: 256 }, (_, value) => {
  const share = value / 255
  if (share < 0.04) return 0
  const ramp = (from: number): number => Math.round(255 * Math.min(1, Math.max(0, (share - from) * 2.5)))
  return packed([Math.max(90, ramp(0)), ramp(0.35), ramp(0.75)], Math.round(60 + 170 * share))
})

/**
 * The edges around the areas of one code: segments x0, y0, x1, y1 between pixel corners, straight runs joined.
 *
 * mask: height x width. code: 0 for any code that is not 0.
 */
export function edges(mask: Uint8Array, width: number, height: number, code = 0): Int32Array {
  const segments: number[] = []
  const inside = (x: number, y: number): boolean => {
    if (x < 0 || y < 0 || x >= width || y >= height) return false
    const value = mask[y * width + x]!
    return code === 0 ? value !== 0 : value === code
  }
  const box = boundingBox(mask, width, height)
  if (!box) return new Int32Array(0)
  const [left, top, right, bottom] = box
  for (let y = top; y <= bottom + 1; y++) {
    let start = -1
    for (let x = left; x <= right + 1; x++) {
      const isEdge = x <= right && inside(x, y) !== inside(x, y - 1)
      if (isEdge && start < 0) start = x
      if (!isEdge && start >= 0) {
        segments.push(start, y, x, y)
        start = -1
      }
    }
  }
  for (let x = left; x <= right + 1; x++) {
    let start = -1
    for (let y = top; y <= bottom + 1; y++) {
      const isEdge = y <= bottom && inside(x, y) !== inside(x - 1, y)
      if (isEdge && start < 0) start = y
      if (!isEdge && start >= 0) {
        segments.push(x, start, x, y)
        start = -1
      }
    }
  }
  return Int32Array.from(segments)
}

/** Left, top, right, bottom of what is not 0, or null. */
export function boundingBox(mask: Uint8Array, width: number, height: number): [number, number, number, number] | null {
  let left = width
  let right = -1
  let top = height
  let bottom = -1
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!mask[y * width + x]) continue
      if (x < left) left = x
      if (x > right) right = x
      if (y < top) top = y
      bottom = y
    }
  }
  return right < 0 ? null : [left, top, right, bottom]
}

/** Which codes occur, rising. */
export function codesIn(mask: Uint8Array): number[] {
  const seen = new Uint8Array(256)
  for (let index = 0; index < mask.length; index++) seen[mask[index]!] = 1
  return [...seen.keys()].filter((code) => code > 0 && seen[code])
}

/** Joins segments that share ends into lines x0, y0, x1, y1 ..., so that dashes run on around corners. */
export function lines(segments: Int32Array): number[][] {
  const at = new Map<number, number[]>() // the segments that end at a corner
  const corner = (x: number, y: number): number => y * 65536 + x
  const count = segments.length / 4
  for (let index = 0; index < count; index++) {
    for (const end of [0, 2]) {
      const key = corner(segments[4 * index + end]!, segments[4 * index + end + 1]!)
      const known = at.get(key)
      if (known) known.push(index)
      else at.set(key, [index])
    }
  }
  const isUsed = new Uint8Array(count)
  const found: number[][] = []
  for (let first = 0; first < count; first++) {
    if (isUsed[first]) continue
    isUsed[first] = 1
    const line = [...segments.subarray(4 * first, 4 * first + 4)]
    for (;;) {
      const [x, y] = [line[line.length - 2]!, line[line.length - 1]!]
      const next = at.get(corner(x, y))!.find((index) => !isUsed[index])
      if (next === undefined) break
      isUsed[next] = 1
      const [x0, y0, x1, y1] = segments.subarray(4 * next, 4 * next + 4) as unknown as [number, number, number, number]
      if (x0 === x && y0 === y) line.push(x1, y1)
      else line.push(x0, y0)
    }
    found.push(line)
  }
  return found
}
