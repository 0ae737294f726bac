// What of a scan is shown and how: plane, slice, window, framing. The address keeps the first three.

import { CENTRED, type Framing } from '../../lib/viewer/camera'
import type { MaskStyle } from '../../lib/viewer/painter'
import { PLANES, indexOf, type Plane } from '../../lib/viewer/reslice'
import { WINDOWS, type Window } from '../../lib/viewer/windowing'

/** What lies under the pointer. hu: null outside the scan and where nothing has arrived yet. */
export interface Hover {
  voxel: readonly [number, number, number]
  hu: number | null
  codes: number[]
}

export type Tool =
  | 'look'
  | 'brush'
  | 'eraser'
  | 'fill'
  | 'lasso'
  | 'grow'
  | 'type'
  | 'ruler'
  | 'angle'
  | 'circle'

export const DRAWING: readonly Tool[] = ['brush', 'eraser', 'fill', 'lasso', 'grow', 'type']
export const MEASURING: readonly Tool[] = ['ruler', 'angle', 'circle']

export class Look {
  plane = $state<Plane>('axial')
  indexes = $state<Record<Plane, number>>({ axial: 0, coronal: 0, sagittal: 0 })
  window = $state.raw<Window>(WINDOWS[0]!)
  framings = $state.raw<Record<Plane, Framing>>({ axial: CENTRED, coronal: CENTRED, sagittal: CENTRED })
  showMasks = $state(true)
  style = $state<MaskStyle>('outline')
  opacity = $state(0.45)
  showProbability = $state(false)
  showEarlier = $state('') //: id of the earlier study beside it
  earlierOffset = $state(0)
  tool = $state<Tool>('look')
  hover = $state.raw<Hover | null>(null)
  cursor = $state.raw<[number, number] | null>(null) //: pixel of the keyboard's cursor in the image

  get index(): number {
    return this.indexes[this.plane]
  }

  get framing(): Framing {
    return this.framings[this.plane]
  }

  set framing(framing: Framing) {
    this.framings = { ...this.framings, [this.plane]: framing }
  }

  /** Shows the slice through a voxel, and lets the other planes pass through it too. */
  goTo(voxel: readonly [number, number, number]): void {
    for (const plane of PLANES) this.indexes[plane] = indexOf(plane, voxel)
  }

  step(by: number, count: number): void {
    this.indexes[this.plane] = Math.min(count - 1, Math.max(0, this.index + by))
  }
}

/** A window as the address has it: a name, or "level,width". */
export function windowText(window: Window): string {
  const named = WINDOWS.find(({ level, width }) => level === window.level && width === window.width)
  return named?.name ?? `${window.level},${window.width}`
}

/** The window that an address means; the first one if it means none. */
export function readWindow(text: string): Window {
  const named = WINDOWS.find(({ name }) => name === text)
  if (named) return named
  const [level, width] = text.split(',').map(Number)
  if (text && level !== undefined && width !== undefined && Number.isFinite(level) && width >= 1) return { level, width }
  return WINDOWS[0]!
}

export function readPlane(text: string | null): Plane {
  return PLANES.find((plane) => plane === text) ?? 'axial'
}
