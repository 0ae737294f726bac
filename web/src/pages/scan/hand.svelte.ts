// What a press, a move and a release do with each tool, whether they come from a mouse, a pen, a finger or a key.

import type { Measurement } from '../../lib/api'
import { t } from '../../lib/i18n'
import { angle, circleStatistics, distance, type Point } from '../../lib/viewer/measure'
import { voxelAt, type PlaneAxes } from '../../lib/viewer/reslice'
import type { Correction } from './correction.svelte'
import { DRAWING, MEASURING, type Look } from './look.svelte'
import type { Measures } from './measures.svelte'
import type { StudyView } from './study-view.svelte'

/** x, y in pixels of the image, (0.5, 0.5) the middle of the first. */
export type Pixel = readonly [number, number]

const POINTS = { ruler: 2, angle: 3, circle: 2 } as const
const LEAST_MM = 1 //: a shorter drag is a click
const LASSO_STEP = 0.7 //: pixels

export class Hand {
  lasso = $state.raw<number[]>([])
  said = $state('')
  private isDown = false
  private last: Pixel = [0, 0]
  private erases = false
  private placed = 0

  constructor(
    private readonly view: StudyView,
    private readonly look: Look,
    private readonly measures: Measures,
    private readonly correction: () => Correction | null,
  ) {}

  private get axes(): PlaneAxes {
    return this.view.planeAxes(this.look.plane)
  }

  private mm(at: Pixel): [number, number] {
    return [round(at[0] * this.axes.x_mm), round(at[1] * this.axes.y_mm)]
  }

  press(at: Pixel, erases = false): void {
    const { tool } = this.look
    this.said = ''
    this.isDown = true
    this.last = at
    this.erases = erases || tool === 'eraser'
    if (MEASURING.includes(tool)) this.pressMeasure(at)
    if (!DRAWING.includes(tool)) return
    const correction = this.correction()
    if (!correction) return
    if (this.look.plane !== 'axial') {
      this.said = t('scan.axialOnly')
      this.isDown = false
      return
    }
    const [x, y] = [Math.floor(at[0]), Math.floor(at[1])]
    const voxel = voxelAt(this.axes, this.look.index, x, y)
    if (tool === 'brush' || tool === 'eraser') correction.strokeTo(this.look.index, at, at, this.erases)
    else if (tool === 'lasso') this.lasso = [...this.lasso, ...at]
    else if (voxel) this.pressVoxel(correction, voxel)
  }

  private pressVoxel(correction: Correction, voxel: readonly [number, number, number]): void {
    const { tool } = this.look
    if (tool === 'fill' && !correction.fill(voxel[0], voxel[2], voxel[1])) this.said = t('scan.notEnclosed')
    if (tool === 'type' && !correction.retype(voxel)) this.said = t('scan.noLesionHere')
    if (tool !== 'grow') return
    void correction.grow(voxel).then(
      (added) => (this.said = added ? '' : t('scan.nothingGrown')),
      (error: unknown) => (this.said = String(error)),
    )
  }

  move(at: Pixel): void {
    const { tool, index } = this.look
    if (this.measures.draft) this.moveMeasure(at)
    if (!this.isDown) return
    if (tool === 'brush' || tool === 'eraser') this.correction()?.strokeTo(index, this.last, at, this.erases)
    if (tool === 'lasso' && Math.hypot(at[0] - this.last[0], at[1] - this.last[1]) < LASSO_STEP) return
    if (tool === 'lasso') this.lasso = [...this.lasso, ...at]
    this.last = at
  }

  /** byKey: a lasso is then closed by `close`, not by every release. */
  release(byKey = false): void {
    if (!this.isDown) return
    this.isDown = false
    const { tool } = this.look
    if (MEASURING.includes(tool)) this.releaseMeasure()
    if (tool === 'brush' || tool === 'eraser') this.correction()?.finish(tool)
    if (tool === 'lasso' && !byKey) this.close()
  }

  /** Fills the lasso. */
  close(): void {
    if (this.lasso.length >= 6) this.correction()?.lasso(this.look.index, this.lasso, this.erases)
    this.lasso = []
  }

  cancel(): void {
    if (this.isDown) this.correction()?.cancel()
    this.isDown = false
    this.lasso = []
    this.measures.draft = null
    this.placed = 0
  }

  get isBusy(): boolean {
    return this.isDown || this.lasso.length > 0 || this.measures.draft !== null
  }

  private pressMeasure(at: Pixel): void {
    const kind = this.look.tool as keyof typeof POINTS
    const point = this.mm(at)
    if (this.measures.draft) {
      this.moveMeasure(at)
      return
    }
    const { plane, index } = this.look
    this.measures.draft = { kind, plane, index, points: [point, point], text: '' }
    this.placed = 1
  }

  private moveMeasure(at: Pixel): void {
    const draft = this.measures.draft!
    const { plane, index, tool } = this.look
    if (draft.plane !== plane || draft.index !== index || draft.kind !== tool) {
      this.measures.draft = null
      return
    }
    this.measures.draft = { ...draft, points: [...draft.points.slice(0, -1), this.mm(at)] }
  }

  private releaseMeasure(): void {
    const draft = this.measures.draft
    if (!draft) return
    const last = draft.points.at(-1) as Point
    if (distance(last, draft.points[this.placed - 1] as Point) < LEAST_MM) return
    this.placed++
    if (this.placed < POINTS[draft.kind]) {
      this.measures.draft = { ...draft, points: [...draft.points, last as [number, number]] }
      return
    }
    this.measures.draft = null
    this.measures.add(draft)
  }
}

function round(mm: number): number {
  return Math.round(mm * 1000) / 1000
}

/** A measurement in words. hu: of its plane's image. */
export function measured(item: Measurement, axes: PlaneAxes, hu: Int16Array | null, spacingKnown: boolean): string {
  const points = item.points as Point[]
  const length = t(spacingKnown ? 'unit.mm' : 'unit.px')
  const [a, b, c] = points as [Point, Point, Point | undefined]
  if (item.kind === 'ruler') return `${distance(a, b).toFixed(1)} ${length}`
  if (item.kind === 'angle') return c ? `${angle(a, b, c).toFixed(1)}°` : ''
  if (!hu) return ''
  const { pixels, mean, sd } = circleStatistics(hu, axes.width, axes.height, axes.x_mm, axes.y_mm, a, b)
  const size = `∅ ${(2 * distance(a, b)).toFixed(1)} ${length}`
  return pixels ? `${mean.toFixed(1)} ± ${sd.toFixed(1)} HU, ${size}` : size
}
