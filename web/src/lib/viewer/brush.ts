// Drawing into one axial slice of a mask: brush strokes, lassos, fills.

export interface Slice {
  mask: Uint8Array
  hu: Int16Array
  width: number
  height: number
}

/** HU that may be drawn on, both included; null for all. */
export type Limits = readonly [number, number] | null

/** Bone and air are never drawn on if HU are limited, however wide the limits are. */
export const SOFT_TISSUE: readonly [number, number] = [-100, 200]

/** The limits cut to soft tissue. */
export function softLimits(low: number, high: number): [number, number] {
  const clip = (hu: number): number => Math.min(SOFT_TISSUE[1], Math.max(SOFT_TISSUE[0], hu))
  return [clip(Math.min(low, high)), clip(Math.max(low, high))]
}

/**
 * A stroke from one point to another: all pixels whose middles are no farther than `radius` from the line.
 *
 * Points are in pixels, (0.5, 0.5) the middle of the first. radius, xMm, yMm: in mm, so that the brush is round on the
 * patient. code: what is written, 0 to erase. only: 0, or the only code that is overwritten. Returns how many pixels
 * changed.
 */
export function stroke(
  slice: Slice,
  from: readonly [number, number],
  to: readonly [number, number],
  radius: number,
  xMm: number,
  yMm: number,
  code: number,
  limits: Limits = null,
  only = 0,
): number {
  const { width, height } = slice
  const [ax, ay] = [from[0] * xMm, from[1] * yMm]
  const [bx, by] = [to[0] * xMm, to[1] * yMm]
  const [ux, uy] = [bx - ax, by - ay]
  const length2 = ux * ux + uy * uy
  const left = Math.max(0, Math.floor((Math.min(ax, bx) - radius) / xMm))
  const right = Math.min(width - 1, Math.ceil((Math.max(ax, bx) + radius) / xMm))
  const top = Math.max(0, Math.floor((Math.min(ay, by) - radius) / yMm))
  const bottom = Math.min(height - 1, Math.ceil((Math.max(ay, by) + radius) / yMm))
  let changed = 0
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const [px, py] = [(x + 0.5) * xMm - ax, (y + 0.5) * yMm - ay]
      const along = length2 === 0 ? 0 : Math.min(1, Math.max(0, (px * ux + py * uy) / length2))
      const [dx, dy] = [px - along * ux, py - along * uy]
      if (dx * dx + dy * dy <= radius * radius) changed += write(slice, y * width + x, code, limits, only)
    }
  }
  return changed
}

/** Writes the code into a pixel if it may; 1 if that changed it. */
function write(slice: Slice, index: number, code: number, limits: Limits, only: number): number {
  const was = slice.mask[index]!
  if (was === code || (only !== 0 && was !== only)) return 0
  const hu = slice.hu[index]!
  if (limits && code !== 0 && (hu < limits[0] || hu > limits[1])) return 0
  slice.mask[index] = code
  return 1
}

/**
 * Fills a polygon by the even-odd rule: the pixels whose middles lie inside.
 *
 * points: x0, y0, x1, y1 ... in pixels; the last joins the first. Returns how many pixels changed.
 */
export function fillPolygon(slice: Slice, points: readonly number[], code: number, limits: Limits = null, only = 0): number {
  const { width, height } = slice
  let changed = 0
  for (let y = 0; y < height; y++) {
    const crossings = crossingsAt(points, y + 0.5)
    for (let pair = 0; pair + 1 < crossings.length; pair += 2) {
      const first = Math.max(0, Math.ceil(crossings[pair]! - 0.5))
      const last = Math.min(width - 1, Math.ceil(crossings[pair + 1]! - 0.5) - 1)
      for (let x = first; x <= last; x++) changed += write(slice, y * width + x, code, limits, only)
    }
  }
  return changed
}

/** Where a horizontal line crosses a polygon's sides, rising. */
function crossingsAt(points: readonly number[], y: number): number[] {
  const crossings: number[] = []
  const count = points.length / 2
  for (let index = 0; index < count; index++) {
    const next = (index + 1) % count
    const [x0, y0] = [points[2 * index]!, points[2 * index + 1]!]
    const [x1, y1] = [points[2 * next]!, points[2 * next + 1]!]
    if (y0 <= y !== y1 <= y) crossings.push(x0 + ((y - y0) / (y1 - y0)) * (x1 - x0))
  }
  return crossings.sort((a, b) => a - b)
}

/**
 * Fills what a closed outline encloses: the pixels of one code, joined by their sides, that hold the one at (x, y).
 *
 * Returns how many pixels changed; -1, and nothing is changed, if the area reaches the image's edge and so is not
 * enclosed.
 */
export function fillEnclosed(slice: Slice, x: number, y: number, code: number): number {
  const { mask, width, height } = slice
  const start = y * width + x
  const was = mask[start]!
  if (was === code) return 0
  const pixels = connected2d(mask, width, height, start)
  const isOpen = was === 0 && pixels.some((index) => atEdge(index, width, height))
  if (isOpen) return -1
  for (const index of pixels) mask[index] = code
  return pixels.length
}

function atEdge(index: number, width: number, height: number): boolean {
  const x = index % width
  return x === 0 || x === width - 1 || index < width || index >= (height - 1) * width
}

/** Pixels of the start's code that are joined with it by their sides. */
function connected2d(mask: Uint8Array, width: number, height: number, start: number): number[] {
  const was = mask[start]!
  const seen = new Uint8Array(mask.length)
  const pixels = [start]
  seen[start] = 1
  for (let next = 0; next < pixels.length; next++) {
    const index = pixels[next]!
    const x = index % width
    const neighbours = [x > 0 ? index - 1 : -1, x < width - 1 ? index + 1 : -1, index - width, index + width]
    for (const other of neighbours) {
      if (other < 0 || other >= width * height || seen[other] || mask[other] !== was) continue
      seen[other] = 1
      pixels.push(other)
    }
  }
  return pixels
}
