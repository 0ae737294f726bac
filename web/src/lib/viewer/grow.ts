// Growing from a click, and the connected lesion under one.

import type { Shape } from './volume'

/** A part of a volume: HU of shape, `origin` its first voxel's slice, row, column in the volume. */
export interface HuBox {
  hu: Int16Array
  shape: Shape
  origin: readonly [number, number, number]
}

/** What may grow. seed: in the box. step_mm: distance of slices, rows, columns. radius_mm: how far from the seed. */
export interface GrowRequest {
  box: HuBox
  seed: readonly [number, number, number]
  low: number
  high: number
  step_mm: readonly [number, number, number]
  radius_mm: number
}

/**
 * Voxels joined with the seed by their faces, in HU from low to high and no farther from it than the radius.
 *
 * Returns (slices x rows x columns of the box) 0 or 1; all 0 if the seed itself is outside the limits.
 */
export function grow({ box, seed, low, high, step_mm, radius_mm }: GrowRequest): Uint8Array {
  const [slices, rows, columns] = box.shape
  const area = rows * columns
  const grown = new Uint8Array(slices * area)
  const allowed = (slice: number, row: number, column: number): boolean => {
    const value = box.hu[slice * area + row * columns + column]!
    if (value < low || value > high) return false
    const [dz, dy, dx] = [
      (slice - seed[0]) * step_mm[0],
      (row - seed[1]) * step_mm[1],
      (column - seed[2]) * step_mm[2],
    ]
    return dz * dz + dy * dy + dx * dx <= radius_mm * radius_mm
  }
  if (!allowed(seed[0], seed[1], seed[2])) return grown
  const stack = [seed[0] * area + seed[1] * columns + seed[2]]
  grown[stack[0]!] = 1
  while (stack.length) {
    const index = stack.pop()!
    const slice = Math.floor(index / area)
    const row = Math.floor((index % area) / columns)
    const column = index % columns
    for (const [dz, dy, dx] of FACES) {
      const [z, y, x] = [slice + dz, row + dy, column + dx]
      if (z < 0 || y < 0 || x < 0 || z >= slices || y >= rows || x >= columns) continue
      const other = z * area + y * columns + x
      if (grown[other] || !allowed(z, y, x)) continue
      grown[other] = 1
      stack.push(other)
    }
  }
  return grown
}

const FACES = [
  [-1, 0, 0],
  [1, 0, 0],
  [0, -1, 0],
  [0, 1, 0],
  [0, 0, -1],
  [0, 0, 1],
] as const

/** A copy of the part of a volume that lies within radius_mm of a voxel, and that voxel's place in it. */
export function boxAround(
  hu: Int16Array,
  shape: Shape,
  voxel: readonly [number, number, number],
  step_mm: readonly [number, number, number],
  radius_mm: number,
): { box: HuBox; seed: [number, number, number] } {
  const first: number[] = []
  const sizes: number[] = []
  for (let axis = 0; axis < 3; axis++) {
    const reach = Math.ceil(radius_mm / step_mm[axis]!)
    const low = Math.max(0, voxel[axis]! - reach)
    const high = Math.min(shape[axis]! - 1, voxel[axis]! + reach)
    first.push(low)
    sizes.push(high - low + 1)
  }
  const [slices, rows, columns] = sizes as [number, number, number]
  const [z0, y0, x0] = first as [number, number, number]
  const part = new Int16Array(slices * rows * columns)
  for (let z = 0; z < slices; z++) {
    for (let y = 0; y < rows; y++) {
      const from = ((z0 + z) * shape[1] + y0 + y) * shape[2] + x0
      part.set(hu.subarray(from, from + columns), (z * rows + y) * columns)
    }
  }
  const box: HuBox = { hu: part, shape: [slices, rows, columns], origin: [z0, y0, x0] }
  return { box, seed: [voxel[0] - z0, voxel[1] - y0, voxel[2] - x0] }
}

/**
 * The lesion at a voxel: indices of all voxels that are not 0 and joined with it by faces, edges or corners.
 *
 * sameCode: only voxels of the same code count.
 */
export function lesionAt(mask: Uint8Array, shape: Shape, start: number, sameCode: boolean): Int32Array {
  const [slices, rows, columns] = shape
  const area = rows * columns
  const code = mask[start]!
  if (code === 0) return new Int32Array(0)
  const seen = new Set([start])
  const stack = [start]
  while (stack.length) {
    const index = stack.pop()!
    const slice = Math.floor(index / area)
    const row = Math.floor((index % area) / columns)
    const column = index % columns
    for (let z = Math.max(0, slice - 1); z <= Math.min(slices - 1, slice + 1); z++) {
      for (let y = Math.max(0, row - 1); y <= Math.min(rows - 1, row + 1); y++) {
        for (let x = Math.max(0, column - 1); x <= Math.min(columns - 1, column + 1); x++) {
          const other = z * area + y * columns + x
          const value = mask[other]!
          if (value === 0 || (sameCode && value !== code) || seen.has(other)) continue
          seen.add(other)
          stack.push(other)
        }
      }
    }
  }
  return Int32Array.from(seen).sort()
}
