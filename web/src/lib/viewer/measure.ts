// Lengths, angles and grey statistics in the millimetres of a plane.

export type Point = readonly [number, number]

/** mm between two points in mm. */
export function distance(a: Point, b: Point): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1])
}

/** Degrees at the middle one of three points, 0 to 180; NaN if two of them coincide. */
export function angle(a: Point, middle: Point, b: Point): number {
  const [ux, uy] = [a[0] - middle[0], a[1] - middle[1]]
  const [vx, vy] = [b[0] - middle[0], b[1] - middle[1]]
  const lengths = Math.hypot(ux, uy) * Math.hypot(vx, vy)
  if (lengths === 0) return NaN
  return (Math.atan2(Math.abs(ux * vy - uy * vx), ux * vx + uy * vy) * 180) / Math.PI
}

export interface Statistics {
  pixels: number
  mean: number
  sd: number
  least: number
  most: number
}

/**
 * HU of the pixels whose middles lie in a circle; NaN if there are none.
 *
 * hu: height x width. middle, edge: in mm from the image's upper left corner. sd: of the population, as np.std.
 */
export function circleStatistics(
  hu: Int16Array,
  width: number,
  height: number,
  xMm: number,
  yMm: number,
  middle: Point,
  edge: Point,
): Statistics {
  const radius = distance(middle, edge)
  const values: number[] = []
  const top = Math.max(0, Math.floor((middle[1] - radius) / yMm))
  const bottom = Math.min(height - 1, Math.ceil((middle[1] + radius) / yMm))
  const left = Math.max(0, Math.floor((middle[0] - radius) / xMm))
  const right = Math.min(width - 1, Math.ceil((middle[0] + radius) / xMm))
  for (let y = top; y <= bottom; y++) {
    for (let x = left; x <= right; x++) {
      const dx = (x + 0.5) * xMm - middle[0]
      const dy = (y + 0.5) * yMm - middle[1]
      if (dx * dx + dy * dy <= radius * radius) values.push(hu[y * width + x]!)
    }
  }
  const pixels = values.length
  if (pixels === 0) return { pixels, mean: NaN, sd: NaN, least: NaN, most: NaN }
  const mean = values.reduce((sum, value) => sum + value, 0) / pixels
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / pixels
  const least = values.reduce((a, b) => Math.min(a, b))
  const most = values.reduce((a, b) => Math.max(a, b))
  return { pixels, mean, sd: Math.sqrt(variance), least, most }
}
