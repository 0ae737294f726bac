// A reader's correction: the mask that is drawn on, undo, the draft on the server, the version it becomes.

import { ApiError, api, refusalOf, type Version } from '../../lib/api'
import { fillEnclosed, fillPolygon, softLimits, stroke, type Limits, type Slice } from '../../lib/viewer/brush'
import { countCodes, gzip } from '../../lib/viewer/encode'
import { boxAround, lesionAt, type GrowRequest } from '../../lib/viewer/grow'
import { History } from '../../lib/viewer/history'
import { between, gapsAround } from '../../lib/viewer/interpolate'
import { UNTYPED } from '../../lib/viewer/overlay'
import { maskVolume, type Volume } from '../../lib/viewer/volume'
import type { StudyView } from './study-view.svelte'

/** How the draft stands on the server. conflict: another tab of this reader saved it meanwhile. */
export type DraftState = 'none' | 'unsaved' | 'saving' | 'saved' | 'failed' | 'conflict'

const AUTOSAVE_MS = 1200
const GROW_SPREAD_HU = 12 //: about twice the noise of a head CT
const GROW_PATCH = 2

export class Correction {
  revision = $state(0) //: raised whenever the mask changes
  code = $state(UNTYPED)
  radiusMm = $state(4)
  isLimited = $state(false)
  lowHu = $state(35)
  highHu = $state(110)
  growMm = $state(40)
  state = $state<DraftState>('none')
  problem = $state('')
  said = $state('') //: what the last tool has to say, such as that an outline is open
  isGrowing = $state(false)
  steps = $state.raw({ undo: false, redo: false })
  counts: Uint32Array[]
  readonly mask: Volume<Uint8Array>
  private readonly history: History
  private draftRevision = 0
  private savedRevision = 0
  private timer: ReturnType<typeof setTimeout> | undefined
  private saving: Promise<void> | null = null
  private worker: Worker | null = null

  /** base: the layer that it begins from, "" for an empty mask. */
  private constructor(
    private readonly view: StudyView,
    readonly base: string,
  ) {
    this.mask = maskVolume(view.geometry.shape)
    this.counts = Array.from({ length: this.mask.shape[0] }, () => new Uint32Array(7))
    this.history = new History((slice) => this.mask.slice(slice))
  }

  /** Goes on with the reader's draft if there is one, else begins from a layer. */
  static async begin(view: StudyView, base: string): Promise<Correction> {
    const draft = await api.draft(view.study.id)
    if (!draft) return Correction.beginFrom(view, base)
    const correction = new Correction(view, draft.base)
    correction.mask.data.set(await api.draftMask(view.study.id))
    correction.draftRevision = draft.revision
    correction.state = 'saved'
    correction.recount()
    return correction
  }

  private static async beginFrom(view: StudyView, base: string): Promise<Correction> {
    const correction = new Correction(view, base)
    const layer = view.layer(base)
    if (layer) {
      await layer.load(0)
      correction.mask.data.set(layer.mask!.data)
    }
    correction.recount()
    return correction
  }

  private recount(): void {
    for (let slice = 0; slice < this.counts.length; slice++) this.counts[slice] = countCodes(this.mask.slice(slice))
    const present = this.counts.reduce((sums, counts) => sums.map((sum, code) => sum + counts[code]!), new Array(7).fill(0))
    const most = present.indexOf(Math.max(...present.slice(1)), 1)
    if (present[most]) this.code = most
    this.revision++
  }

  private get limits(): Limits {
    return this.isLimited ? softLimits(this.lowHu, this.highHu) : null
  }

  private slice(index: number): Slice {
    const [, height, width] = this.mask.shape
    return { mask: this.mask.slice(index), hu: this.view.volume.slice(index), width, height }
  }

  /** A piece of a stroke in an axial slice; points in pixels. Several make one step of undo: see `finish`. */
  strokeTo(index: number, from: readonly [number, number], to: readonly [number, number], erases: boolean): void {
    this.history.touch(index)
    const [yMm, xMm] = this.view.geometry.pixel_mm
    const code = erases ? 0 : this.code
    const changed = stroke(this.slice(index), from, to, this.radiusMm, xMm, yMm, code, this.limits)
    if (changed) this.changed([index])
  }

  lasso(index: number, points: readonly number[], erases: boolean): void {
    this.history.touch(index)
    fillPolygon(this.slice(index), points, erases ? 0 : this.code, this.limits)
    this.finish('lasso')
  }

  /** Returns whether something was filled. */
  fill(index: number, x: number, y: number): boolean {
    this.history.touch(index)
    const filled = fillEnclosed(this.slice(index), x, y, this.code)
    this.finish('fill')
    return filled >= 0
  }

  /** Gives the lesion at a voxel this correction's type. Returns whether there was one. */
  retype(voxel: readonly [number, number, number]): boolean {
    const [, rows, columns] = this.mask.shape
    const lesion = lesionAt(this.mask.data, this.mask.shape, (voxel[0] * rows + voxel[1]) * columns + voxel[2], true)
    this.write(lesion)
    this.finish('type')
    return lesion.length > 0
  }

  private write(voxels: Int32Array): void {
    const { area } = this.mask
    for (const voxel of voxels) {
      this.history.touch(Math.floor(voxel / area))
      this.mask.data[voxel] = this.code
    }
  }

  /** Grows from a voxel over HU like those around it. Returns how many voxels were added. */
  async grow(voxel: readonly [number, number, number]): Promise<number> {
    const { geometry, volume } = this.view
    const step_mm = [stepOf(geometry.positions_mm), ...geometry.pixel_mm] as [number, number, number]
    const around = boxAround(volume.data, volume.shape, voxel, step_mm, this.growMm)
    const mean = this.meanAround(voxel)
    const [low, high] = this.limits ?? softLimits(mean - GROW_SPREAD_HU, mean + GROW_SPREAD_HU)
    this.isGrowing = true
    try {
      const grown = await this.inWorker({ ...around, low, high, step_mm, radius_mm: this.growMm })
      return this.addBox(grown, around.box.shape, around.box.origin)
    } finally {
      this.isGrowing = false
    }
  }

  private inWorker(request: GrowRequest): Promise<Uint8Array> {
    this.worker?.terminate()
    const worker = new Worker(new URL('../../lib/viewer/grow.worker.ts', import.meta.url), { type: 'module' })
    this.worker = worker
    return new Promise((resolve, reject) => {
      worker.onmessage = (event: MessageEvent<Uint8Array>) => resolve(event.data)
      worker.onerror = (event) => reject(new Error(event.message))
      worker.postMessage(request, [request.box.hu.buffer])
    })
  }

  private meanAround([slice, row, column]: readonly [number, number, number]): number {
    const { hu, width, height } = this.slice(slice)
    let [sum, count] = [0, 0]
    for (let y = Math.max(0, row - GROW_PATCH); y <= Math.min(height - 1, row + GROW_PATCH); y++) {
      for (let x = Math.max(0, column - GROW_PATCH); x <= Math.min(width - 1, column + GROW_PATCH); x++) {
        sum += hu[y * width + x]!
        count++
      }
    }
    return Math.round(sum / count)
  }

  private addBox(grown: Uint8Array, shape: readonly number[], origin: readonly number[]): number {
    const [, rows, columns] = this.mask.shape
    const [slices, height, width] = shape as [number, number, number]
    const [z0, y0, x0] = origin as [number, number, number]
    let added = 0
    for (let z = 0; z < slices; z++) {
      const part = grown.subarray(z * height * width, (z + 1) * height * width)
      if (!part.includes(1)) continue
      this.history.touch(z0 + z)
      for (let index = 0; index < part.length; index++) {
        if (!part[index]) continue
        const at = ((z0 + z) * rows + y0 + Math.floor(index / width)) * columns + x0 + (index % width)
        if (this.mask.data[at] !== 0) continue
        this.mask.data[at] = this.code
        added++
      }
    }
    this.finish('grow')
    return added
  }

  /** Fills the slices between drawn ones around a slice, for this correction's type. Returns how many were filled. */
  interpolate(current: number): number {
    const { code } = this
    const isDrawn = this.counts.map((counts) => counts[code]! > 0)
    const [, height, width] = this.mask.shape
    const { pixel_mm, positions_mm: at } = this.view.geometry
    const setOf = (slice: number): Uint8Array => this.mask.slice(slice).map((value) => (value === code ? 1 : 0))
    let filled = 0
    for (const [first, last] of gapsAround(isDrawn, current)) {
      const [a, b] = [setOf(first), setOf(last)]
      for (let slice = first + 1; slice < last; slice++) {
        const share = (at[slice]! - at[first]!) / (at[last]! - at[first]!)
        const area = between(a, b, share, width, height, pixel_mm[1], pixel_mm[0])
        this.history.touch(slice)
        const mask = this.mask.slice(slice)
        for (let index = 0; index < area.length; index++) if (area[index] && mask[index] === 0) mask[index] = code
        filled++
      }
    }
    this.finish('interpolate')
    return filled
  }

  /** Ends a step of undo. */
  finish(label: string): void {
    this.changed(this.history.commit(label), true)
  }

  /** Takes back what was drawn since the last step, as when a second finger shows that a pinch was meant. */
  cancel(): void {
    this.changed(this.history.cancel())
  }

  undo(): void {
    const step = this.history.undo()
    if (step) this.changed(step.slices.map(({ slice }) => slice), true)
  }

  redo(): void {
    const step = this.history.redo()
    if (step) this.changed(step.slices.map(({ slice }) => slice), true)
  }

  private changed(slices: readonly number[], isStep = false): void {
    if (!slices.length) return
    for (const slice of slices) this.counts[slice] = countCodes(this.mask.slice(slice))
    this.revision++
    this.said = ''
    if (!isStep) return
    this.steps = { undo: this.history.canUndo, redo: this.history.canRedo }
    if (this.state !== 'conflict') this.state = 'unsaved'
    clearTimeout(this.timer)
    this.timer = setTimeout(() => void this.save(), AUTOSAVE_MS)
  }

  /** Whether there is something that the server does not have. */
  get isUnsaved(): boolean {
    return this.state === 'unsaved' || this.state === 'failed' || this.state === 'conflict' || this.saving !== null
  }

  /** Saves the draft; one save at a time, and again if the mask changed while it ran. */
  async save(): Promise<void> {
    clearTimeout(this.timer)
    if (this.saving) {
      await this.saving
      if (this.savedRevision === this.revision) return
    }
    if (this.state !== 'unsaved' && this.state !== 'failed') return
    this.saving = this.put()
    await this.saving
    this.saving = null
  }

  private async put(): Promise<void> {
    const revision = this.revision
    this.state = 'saving'
    this.problem = ''
    try {
      const draft = await api.saveDraft(this.view.study.id, this.base, this.draftRevision, await gzip(this.mask.data), true)
      this.draftRevision = draft.revision
      this.savedRevision = revision
      if (this.state === 'saving') this.state = this.revision === revision ? 'saved' : 'unsaved'
    } catch (error) {
      const isConflict = error instanceof ApiError && error.status === 412
      this.state = isConflict ? 'conflict' : 'failed'
      this.problem = refusalOf(error).what
      if (!isConflict) this.timer = setTimeout(() => void this.save(), 5 * AUTOSAVE_MS)
    }
  }

  /** After a conflict: what is drawn here replaces what the other tab saved. */
  async overwrite(): Promise<void> {
    this.draftRevision = (await api.draft(this.view.study.id))?.revision ?? 0
    this.state = 'unsaved'
    await this.save()
  }

  /** The draft becomes a version. Throws an ApiError of status 409 if there is a newer one than `after`. */
  async saveVersion(after: number, comment: string): Promise<Version> {
    if (this.state !== 'saved') this.state = 'unsaved' // a version is made of the draft that the server has
    await this.save()
    if (this.isUnsaved) throw new Error(this.problem)
    return api.saveVersion(this.view.study.id, { after, comment })
  }

  /** Ends the correction and throws the draft away. */
  async discard(): Promise<void> {
    this.end()
    await this.saving
    await api.deleteDraft(this.view.study.id)
  }

  end(): void {
    clearTimeout(this.timer)
    this.worker?.terminate()
  }
}

/** The usual distance of slices. */
function stepOf(positions: readonly number[]): number {
  const distances = positions.slice(1).map((at, index) => at - positions[index]!)
  distances.sort((a, b) => a - b)
  return distances[Math.floor(distances.length / 2)] ?? 1
}
