// What lies over the image but is not of the scan: brush, lasso, measurements, the keyboard's cursor.

import type { Measurement } from '../../lib/api'
import { toScreen, type Camera } from '../../lib/viewer/camera'
import { distance, type Point } from '../../lib/viewer/measure'
import type { PlaneAxes } from '../../lib/viewer/reslice'

const LINE = '#7cd4ff'
const SHADE = 'rgb(0 0 0 / 75%)'

export interface Marks {
  measurements: { item: Measurement; text: string }[]
  lasso: readonly number[]
  /** Middle in pixels of the image, radius in mm. */
  brush: { at: readonly [number, number]; radiusMm: number; colour: string } | null
  cursor: readonly [number, number] | null
}

export function paintMarks(
  context: CanvasRenderingContext2D,
  view: Camera,
  axes: PlaneAxes,
  marks: Marks,
  pixelRatio: number,
): void {
  const at = (mm: Point): [number, number] => toScreen(view, mm)
  const pixel = (x: number, y: number): [number, number] => at([x * axes.x_mm, y * axes.y_mm])
  context.lineJoin = 'round'
  for (const { item, text } of marks.measurements) paintMeasurement(context, item, text, at, view.scale, pixelRatio)
  if (marks.lasso.length >= 4) {
    context.beginPath()
    for (let index = 0; index < marks.lasso.length; index += 2) {
      context.lineTo(...pixel(marks.lasso[index]!, marks.lasso[index + 1]!))
    }
    lined(context, LINE, pixelRatio)
  }
  if (marks.brush) {
    context.beginPath()
    const [x, y] = pixel(...marks.brush.at)
    context.arc(x, y, Math.max(1, marks.brush.radiusMm * view.scale), 0, 2 * Math.PI)
    lined(context, marks.brush.colour, pixelRatio)
  }
  if (marks.cursor) {
    const [x, y] = pixel(marks.cursor[0] + 0.5, marks.cursor[1] + 0.5)
    const [near, far] = [4 * pixelRatio, 16 * pixelRatio]
    context.beginPath()
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]] as const) {
      context.moveTo(x + dx * near, y + dy * near)
      context.lineTo(x + dx * far, y + dy * far)
    }
    lined(context, '#ffffff', pixelRatio)
  }
}

/** Strokes the path in a colour on a dark rim, so that it shows on bone and on air. */
function lined(context: CanvasRenderingContext2D, colour: string, pixelRatio: number): void {
  context.strokeStyle = SHADE
  context.lineWidth = 3.5 * pixelRatio
  context.stroke()
  context.strokeStyle = colour
  context.lineWidth = 1.5 * pixelRatio
  context.stroke()
}

function paintMeasurement(
  context: CanvasRenderingContext2D,
  item: Measurement,
  text: string,
  at: (mm: Point) => [number, number],
  scale: number,
  pixelRatio: number,
): void {
  const points = (item.points as Point[]).map(at)
  const [first, second] = points as [[number, number], [number, number]]
  context.beginPath()
  if (item.kind === 'circle') {
    const radius = distance(item.points[0] as Point, item.points[1] as Point) * scale
    context.arc(first[0], first[1], radius, 0, 2 * Math.PI)
  } else for (const point of points) context.lineTo(...point)
  lined(context, LINE, pixelRatio)
  if (item.kind !== 'circle') {
    for (const [x, y] of points) {
      context.beginPath()
      context.arc(x, y, 2.5 * pixelRatio, 0, 2 * Math.PI)
      context.fillStyle = LINE
      context.fill()
    }
  }
  const rightmost = points.reduce((right, point) => (point[0] > right[0] ? point : right))
  const anchor = { ruler: rightmost, angle: second, circle: first }[item.kind]
  const offset = item.kind === 'circle' ? distance(first, second) * Math.SQRT1_2 : 0
  label(context, text, anchor[0] + offset + 8 * pixelRatio, anchor[1] - offset - 6 * pixelRatio, pixelRatio)
}

function label(context: CanvasRenderingContext2D, text: string, x: number, y: number, pixelRatio: number): void {
  context.font = `${12.5 * pixelRatio}px system-ui, sans-serif`
  const width = context.measureText(text).width
  const left = Math.max(4, Math.min(x, context.canvas.width - width - 6 * pixelRatio))
  const bottom = Math.max(16 * pixelRatio, y)
  context.strokeStyle = SHADE
  context.lineWidth = 3.5 * pixelRatio
  context.strokeText(text, left, bottom)
  context.fillStyle = '#d4f0ff'
  context.fillText(text, left, bottom)
}
