// The three planes of a volume by index arithmetic, in true proportions, slices at their true positions.

import type { Shape } from './volume'

export type Plane = 'axial' | 'coronal' | 'sagittal'
export const PLANES: readonly Plane[] = ['axial', 'coronal', 'sagittal']

/** Where voxels lie; see `ScanGeometry` of the server. thickness_mm: (slices,) that each slice stands for. */
export interface Geometry {
  shape: Shape
  pixel_mm: readonly [number, number]
  positions_mm: readonly number[]
  thickness_mm: readonly number[]
}

/**
 * An image's axes. A pixel's middle is at (x + 0.5) * x_mm from the image's left edge, (y + 0.5) * y_mm from its top.
 *
 * count: how many images the plane has. below, share: for each image row of coronal and sagittal planes, the slice at or
 * below it and how far toward the next one it lies, 0 to 1; below is -1 in gaps where slices are missing.
 */
export interface PlaneAxes {
  plane: Plane
  width: number
  height: number
  x_mm: number
  y_mm: number
  count: number
  below: Int32Array
  share: Float64Array
}

const GAP = 1.5 //: a distance of so many times what both slices stand for is a gap, as in scan.py

/** mm that each slice stands for, from the server's mL per voxel; 1 if the spacing is unknown. */
export function thicknesses(voxelMl: readonly (number | null)[], pixelMm: readonly [number, number]): number[] {
  const area = pixelMm[0] * pixelMm[1]
  return voxelMl.map((ml) => (ml === null ? 1 : (ml * 1000) / area))
}

export function planeAxes(geometry: Geometry, plane: Plane): PlaneAxes {
  const [slices, rows, columns] = geometry.shape
  const [rowMm, columnMm] = geometry.pixel_mm
  if (plane === 'axial') {
    const nothing = { below: new Int32Array(0), share: new Float64Array(0) }
    return { plane, width: columns, height: rows, x_mm: columnMm, y_mm: rowMm, count: slices, ...nothing }
  }
  const step = Math.min(rowMm, columnMm)
  const { below, share } = rowsOfSlices(geometry, step)
  const across = plane === 'coronal' ? { width: columns, x_mm: columnMm } : { width: rows, x_mm: rowMm }
  return { plane, ...across, height: below.length, y_mm: step, count: plane === 'coronal' ? rows : columns, below, share }
}

/** For each image row, from the head down, the slice below and the share of the one above it. */
function rowsOfSlices(geometry: Geometry, step: number): { below: Int32Array; share: Float64Array } {
  const { positions_mm: at, thickness_mm: thick } = geometry
  const last = at.length - 1
  const bottom = at[0]! - thick[0]! / 2
  const top = at[last]! + thick[last]! / 2
  const height = Math.max(1, Math.round((top - bottom) / step))
  const below = new Int32Array(height)
  const share = new Float64Array(height)
  for (let y = 0; y < height; y++) {
    const mm = top - (y + 0.5) * step
    let slice = 0
    while (slice < last && at[slice + 1]! <= mm) slice++
    if (slice === last || mm < at[0]!) {
      below[y] = slice // above the last slice's middle or below the first one's
      continue
    }
    const distance = at[slice + 1]! - at[slice]!
    const isGap = distance > (GAP * (thick[slice]! + thick[slice + 1]!)) / 2
    if (!isGap) {
      below[y] = slice
      share[y] = (mm - at[slice]!) / distance
    } else if (mm - at[slice]! <= thick[slice]! / 2) below[y] = slice
    else if (at[slice + 1]! - mm <= thick[slice + 1]! / 2) below[y] = slice + 1
    else below[y] = -1
  }
  return { below, share }
}

/** HU of a coronal or sagittal image, linear between slices, `nothing` in gaps. out: height x width. */
export function resliceHu(hu: Int16Array, shape: Shape, axes: PlaneAxes, index: number, out: Int16Array): void {
  const [slices, rows, columns] = shape
  const step = axes.plane === 'coronal' ? 1 : columns
  const start = axes.plane === 'coronal' ? index * columns : index
  for (let y = 0; y < axes.height; y++) {
    const line = out.subarray(y * axes.width, (y + 1) * axes.width)
    const slice = axes.below[y]!
    const share = axes.share[y]!
    if (slice < 0) {
      line.fill(-1024)
      continue
    }
    const lower = slice * rows * columns + start
    const upper = Math.min(slice + 1, slices - 1) * rows * columns + start
    for (let x = 0; x < axes.width; x++) {
      const low = hu[lower + x * step]!
      line[x] = share === 0 ? low : Math.round(low + share * (hu[upper + x * step]! - low))
    }
  }
}

/** Codes of a mask, of the nearest slice (the lower one if both are as near), 0 in gaps. out: height x width. */
export function resliceMask(mask: Uint8Array, shape: Shape, axes: PlaneAxes, index: number, out: Uint8Array): void {
  const [, rows, columns] = shape
  const step = axes.plane === 'coronal' ? 1 : columns
  const start = axes.plane === 'coronal' ? index * columns : index
  for (let y = 0; y < axes.height; y++) {
    const line = out.subarray(y * axes.width, (y + 1) * axes.width)
    const slice = sliceOfRow(axes, y)
    if (slice < 0) {
      line.fill(0)
      continue
    }
    const from = slice * rows * columns + start
    for (let x = 0; x < axes.width; x++) line[x] = mask[from + x * step]!
  }
}

/** The slice nearest to an image row of a coronal or sagittal plane, -1 in a gap. */
export function sliceOfRow(axes: PlaneAxes, y: number): number {
  const slice = axes.below[y]!
  return slice >= 0 && axes.share[y]! > 0.5 ? slice + 1 : slice
}

/** Slice, row, column of a pixel of an image, or null outside it and in gaps. */
export function voxelAt(axes: PlaneAxes, index: number, x: number, y: number): [number, number, number] | null {
  if (x < 0 || y < 0 || x >= axes.width || y >= axes.height) return null
  if (axes.plane === 'axial') return [index, y, x]
  const slice = sliceOfRow(axes, y)
  if (slice < 0) return null
  return axes.plane === 'coronal' ? [slice, index, x] : [slice, x, index]
}

/** Which image of a plane a voxel lies in. */
export function indexOf(plane: Plane, voxel: readonly [number, number, number]): number {
  return voxel[plane === 'axial' ? 0 : plane === 'coronal' ? 1 : 2]
}
