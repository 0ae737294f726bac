// Where an image lies on the screen: millimetres to screen pixels and back.

import type { PlaneAxes } from './reslice'

/** scale: screen pixels per mm. x, y: the image's upper left corner on the screen. */
export interface Camera {
  scale: number
  x: number
  y: number
}

/** zoom: 1 fits the image into the view. pan: mm by which the image is moved from the middle. */
export interface Framing {
  zoom: number
  pan: readonly [number, number]
}

export const CENTRED: Framing = { zoom: 1, pan: [0, 0] }
const LEAST_ZOOM = 0.5
const MOST_ZOOM = 40

export function camera(axes: PlaneAxes, width: number, height: number, { zoom, pan }: Framing): Camera {
  const [across, down] = [axes.width * axes.x_mm, axes.height * axes.y_mm]
  const scale = Math.min(width / across, height / down) * zoom
  return { scale, x: width / 2 + (pan[0] - across / 2) * scale, y: height / 2 + (pan[1] - down / 2) * scale }
}

/** A screen point in mm from the image's upper left corner. */
export function toMm({ scale, x, y }: Camera, at: readonly [number, number]): [number, number] {
  return [(at[0] - x) / scale, (at[1] - y) / scale]
}

export function toScreen({ scale, x, y }: Camera, mm: readonly [number, number]): [number, number] {
  return [x + mm[0] * scale, y + mm[1] * scale]
}

/** The framing after zooming by a factor about a screen point, which stays where it is. */
export function zoomedAt(
  axes: PlaneAxes,
  width: number,
  height: number,
  framing: Framing,
  at: readonly [number, number],
  factor: number,
): Framing {
  const before = camera(axes, width, height, framing)
  const zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, framing.zoom * factor))
  const scale = (before.scale * zoom) / framing.zoom
  const mm = toMm(before, at)
  const pan: [number, number] = [
    (at[0] - mm[0] * scale - width / 2) / scale + (axes.width * axes.x_mm) / 2,
    (at[1] - mm[1] * scale - height / 2) / scale + (axes.height * axes.y_mm) / 2,
  ]
  return { zoom, pan }
}
