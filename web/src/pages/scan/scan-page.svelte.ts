// The Scan page's state: a study, what is shown of it, what is drawn on it, and what a reader says of it.

import { ApiError, api, refusalOf, type ReadingState, type Refusal, type Study, type Version } from '../../lib/api'
import { t } from '../../lib/i18n'
import { navigate, replaceQuery, route } from '../../lib/router'
import { mayWrite } from '../../lib/session'
import { UNTYPED } from '../../lib/viewer/overlay'
import { Correction } from './correction.svelte'
import { Hand } from './hand.svelte'
import { DRAWING, Look, readPlane, readWindow, windowText, type Tool } from './look.svelte'
import { Measures } from './measures.svelte'
import { StudyView } from './study-view.svelte'

export class ScanPage {
  readonly look = new Look()
  view = $state.raw<StudyView | null>(null)
  earlier = $state.raw<StudyView | null>(null)
  correction = $state.raw<Correction | null>(null)
  measures = $state.raw<Measures | null>(null)
  hand = $state.raw<Hand | null>(null)
  problem = $state.raw<Refusal | null>(null)
  said = $state('')
  newer = $state.raw<Version | null>(null) //: the version that another reader saved meanwhile
  active = $state('') //: id of the layer whose mL are shown
  base = $state('') //: id of the layer that a correction begins from
  private lesion = -1
  private seenVersion = 0 //: the newest one when the correction began
  private isBeginning: Promise<void> | null = null
  private isEnded = false
  private readonly query = route().query //: as it was when the page opened

  constructor(readonly id: string) {
    this.look.window = readWindow(this.query.get('window') ?? '')
    this.look.plane = readPlane(this.query.get('plane'))
  }

  async load(): Promise<void> {
    this.problem = null
    try {
      const study = await api.study(this.id)
      if (!this.isEnded) this.open(study)
    } catch (error) {
      this.problem = refusalOf(error)
    }
  }

  private open(study: Study): void {
    const [slices, rows, columns] = study.geometry.shape as [number, number, number]
    const first = study.lesions[0]?.centre as [number, number, number] | undefined
    this.look.goTo(first ?? [Math.floor(slices / 2), Math.floor(rows / 2), Math.floor(columns / 2)])
    if (first) this.lesion = 0
    if (!study.geometry.spacing_known) this.look.plane = 'axial'
    const { plane } = this.look
    const asked = Number(this.query.get('slice') ?? NaN)
    const view = new StudyView(study, 0)
    if (asked >= 1) this.look.indexes[plane] = Math.min(view.planeAxes(plane).count, Math.floor(asked)) - 1
    view.lookAt(this.look.indexes.axial)
    this.view = view
    const measures = new Measures(study.id, mayWrite())
    this.measures = measures
    this.hand = new Hand(view, this.look, measures, () => this.correction)
    void view.load()
    void measures.load()
    this.showNewest()
    if (mayWrite()) void this.resumeDraft()
  }

  /** The newest layer is shown, and its mL. */
  private showNewest(): void {
    const newest = this.view?.newest
    this.active = newest?.id ?? ''
    this.base = newest?.id ?? ''
    for (const layer of this.view?.layers ?? []) if (layer !== newest) layer.visible = false
    if (newest) this.toggle(newest.id, true)
  }

  toggle(id: string, visible: boolean): void {
    const layer = this.view?.layer(id)
    if (!layer) return
    layer.visible = visible
    if (visible) layer.load(this.look.indexes.axial).catch(() => {}) // its problem is shown beside it
  }

  /** Takes over what changed on the server. */
  async refresh(): Promise<void> {
    const { view } = this
    if (!view) return
    const newestBefore = view.newest?.id
    try {
      const study = await api.study(this.id)
      if (study.revision === view.study.revision && study.layers.length === view.layers.length) return
      view.update(study)
      if (view.newest?.id !== newestBefore && !this.correction) this.showNewest()
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  end(): void {
    this.isEnded = true
    this.view?.abort()
    this.earlier?.abort()
    if (this.correction?.isUnsaved) void this.correction.save()
    this.correction?.end()
  }

  /** Keeps slice, window and plane in the address, slices counted from 1. */
  keepAddress(): void {
    const { plane, index, window } = this.look
    replaceQuery({ slice: index + 1, window: windowText(window), plane: plane === 'axial' ? undefined : plane })
  }

  get count(): number {
    return this.view?.planeAxes(this.look.plane).count ?? 1
  }

  jump(index: number): void {
    this.look.indexes[this.look.plane] = Math.min(this.count - 1, Math.max(0, index))
  }

  /** Goes one lesion on, largest first, and round. */
  nextLesion(by: 1 | -1): void {
    const lesions = this.view?.study.lesions ?? []
    if (!lesions.length) {
      this.said = t('scan.nothing')
      return
    }
    this.lesion = (this.lesion + by + lesions.length) % lesions.length
    this.goToLesion(this.lesion)
  }

  goToLesion(number: number): void {
    const lesion = this.view?.study.lesions[number]
    if (!lesion) return
    this.lesion = number
    this.look.goTo(lesion.centre as [number, number, number])
  }

  // ---- an earlier scan beside it ----

  async showEarlier(id: string): Promise<void> {
    this.earlier?.abort()
    this.earlier = null
    this.look.showEarlier = id
    this.look.earlierOffset = 0
    if (!id) return
    try {
      const earlier = new StudyView(await api.study(id), 0)
      if (this.look.showEarlier !== id) return
      this.earlier = earlier
      earlier.lookAt(this.earlierIndex)
      void earlier.load()
      const { newest } = earlier
      if (newest) {
        newest.visible = true
        await newest.load(this.earlierIndex)
      }
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  toggleEarlier(): void {
    const first = this.view?.study.earlier[0]
    if (this.look.showEarlier) void this.showEarlier('')
    else if (first) void this.showEarlier(first.id)
  }

  /** The earlier scan's slice at the same distance from the head's top, or from the image's middle. */
  get earlierIndex(): number {
    const { view, earlier, look } = this
    if (!view || !earlier) return 0
    const { plane, index, earlierOffset } = look
    const [mine, other] = [view.geometry, earlier.geometry]
    let found: number
    if (plane === 'axial') {
      const depth = mine.positions_mm.at(-1)! - mine.positions_mm[index]!
      const wanted = other.positions_mm.at(-1)! - depth
      const away = other.positions_mm.map((at) => Math.abs(at - wanted))
      found = away.indexOf(Math.min(...away))
    } else {
      const axis = plane === 'coronal' ? 0 : 1
      const size = plane === 'coronal' ? 1 : 2
      const mm = (index - mine.shape[size] / 2) * mine.pixel_mm[axis]
      found = Math.round(mm / other.pixel_mm[axis] + other.shape[size] / 2)
    }
    return Math.min(earlier.planeAxes(plane).count - 1, Math.max(0, found + earlierOffset))
  }

  // ---- correcting ----

  async pick(tool: Tool): Promise<void> {
    this.hand?.cancel()
    this.said = ''
    if (DRAWING.includes(tool)) {
      if (!mayWrite()) return
      await this.beginCorrection()
      if (!this.correction) return
    }
    this.look.tool = tool
  }

  /** Begins a correction from `base`, or goes on with the draft. */
  beginCorrection(): Promise<void> {
    if (this.correction) return Promise.resolve()
    this.isBeginning ??= this.begin().finally(() => (this.isBeginning = null))
    return this.isBeginning
  }

  private async begin(): Promise<void> {
    try {
      const correction = await Correction.begin(this.view!, this.base)
      if (this.isEnded) return
      // The draft takes the place of the layer that it began from, which can be shown again beside it, dashed.
      for (const layer of this.view!.layers) layer.visible = false
      this.look.showMasks = true
      this.seenVersion = this.view!.newestVersion
      this.correction = correction
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  /** A draft that the reader left is there again after a reload. */
  private async resumeDraft(): Promise<void> {
    try {
      if (await api.draft(this.id)) await this.beginCorrection()
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  async reloadDraft(): Promise<void> {
    this.correction?.end()
    this.correction = null
    await this.beginCorrection()
  }

  async discard(): Promise<void> {
    const { correction } = this
    if (!correction) return
    this.look.tool = 'look'
    try {
      await correction.discard()
      this.correction = null
      this.newer = null
      this.showNewest()
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  /** after: the newest version that the reader has seen. Returns whether the version is saved. */
  async saveVersion(comment: string, after = this.seenVersion): Promise<boolean> {
    const { correction } = this
    if (!correction) return false
    try {
      const version = await correction.saveVersion(after, comment)
      correction.end()
      this.correction = null
      this.newer = null
      this.look.tool = 'look'
      this.view!.update(await api.study(this.id))
      this.showNewest()
      this.said = t('scan.versionSaved', { number: version.number })
      return true
    } catch (error) {
      if (error instanceof ApiError && error.status === 409 && isVersion(error.body)) this.newer = error.body
      else this.said = refusalOf(error).what
      return false
    }
  }

  setCode(code: number): void {
    if (this.correction && code >= 1 && code <= UNTYPED) this.correction.code = code
  }

  interpolate(): void {
    const filled = this.correction?.interpolate(this.look.indexes.axial) ?? 0
    this.said = filled ? t('scan.filled', { count: filled }) : t('scan.noGap')
  }

  // ---- reading ----

  /** Says what the reader thinks of the study and goes on to the next unread one. */
  async read(state: ReadingState): Promise<void> {
    if (!mayWrite() || !this.view) return
    try {
      this.view.study = await api.changeStudy(this.id, { state })
      await this.next()
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  async next(): Promise<void> {
    try {
      const found = await api.studies({ state: 'unread', sort: 'priority', limit: 2 })
      const study = found.studies.find(({ id }) => id !== this.id)
      if (study) navigate(`/studies/${study.id}`)
      else this.said = t('scan.noNext')
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }

  async predict(): Promise<void> {
    try {
      await api.predict({ studies: [this.id], model: '' })
      await this.refresh()
    } catch (error) {
      this.said = refusalOf(error).what
    }
  }
}

function isVersion(body: unknown): body is Version {
  return typeof body === 'object' && body !== null && 'number' in body && 'user' in body
}

