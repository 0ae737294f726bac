// A study's voxels and its layers' masks, as they arrive.

import { api, isAbort, refusalOf, type Layer, type Study } from '../../lib/api'
import { countCodes } from '../../lib/viewer/encode'
import { planeAxes, thicknesses, type Geometry, type Plane, type PlaneAxes } from '../../lib/viewer/reslice'
import { SliceLoader, Volume, huVolume, maskVolume } from '../../lib/viewer/volume'

/** A layer over a scan. Its voxels are fetched when it is first shown. */
export class LayerView {
  mask = $state.raw<Volume<Uint8Array> | null>(null)
  probability = $state.raw<Volume<Uint8Array> | null>(null)
  visible = $state(false)
  revision = $state(0) //: raised whenever voxels arrive
  problem = $state('')
  counts: Uint32Array[] = [] //: (slices) of (7,) pixels by code
  private loading: Promise<void> | null = null
  private loadingProbability = false
  private readonly loaders: SliceLoader<Uint8Array>[] = []

  constructor(
    private readonly owner: StudyView,
    public layer: Layer,
  ) {}

  get id(): string {
    return this.layer.id
  }

  /** Fetches the slices with bleeding; the others hold none. */
  load(centre: number): Promise<void> {
    this.loading ??= this.bring(centre)
    return this.loading
  }

  private async bring(centre: number): Promise<void> {
    const { shape } = this.owner.geometry
    const mask = maskVolume(shape)
    this.counts = Array.from({ length: shape[0] }, () => new Uint32Array(7))
    this.mask = mask
    const loader = new SliceLoader(
      mask,
      async (first, last, signal) => {
        const options = { signal, query: { revision: this.layer.time } }
        return (await api.mask(this.owner.study.id, this.id, first, last, options)).buffer
      },
      centre,
      (first, last) => {
        for (let slice = first; slice <= last; slice++) this.counts[slice] = countCodes(mask.slice(slice))
        this.revision++
      },
      this.layer.slices_with_bleeding,
    )
    this.loaders.push(loader)
    this.revision++
    try {
      await loader.load()
      this.problem = ''
    } catch (error) {
      this.problem = refusalOf(error).what
      this.loading = null
      throw error
    }
  }

  async loadProbability(centre: number): Promise<void> {
    if (this.loadingProbability || !this.layer.has_probability) return
    this.loadingProbability = true
    const volume = maskVolume(this.owner.geometry.shape)
    this.probability = volume
    const loader = new SliceLoader(
      volume,
      async (first, last, signal) => {
        const options = { signal, query: { revision: this.layer.time } }
        return (await api.probability(this.owner.study.id, this.id, first, last, options)).buffer
      },
      centre,
      () => this.revision++,
    )
    this.loaders.push(loader)
    try {
      await loader.load()
    } catch (error) {
      this.problem = refusalOf(error).what
      this.loadingProbability = false
    }
  }

  abort(): void {
    for (const loader of this.loaders) loader.abort()
  }
}

export class StudyView {
  study = $state.raw() as Study
  layers = $state.raw<LayerView[]>([])
  revision = $state(0) //: raised whenever slices arrive
  problem = $state('')
  readonly volume: Volume<Int16Array>
  readonly geometry: Geometry
  private readonly loader: SliceLoader<Int16Array>
  private readonly axes = new Map<Plane, PlaneAxes>()

  constructor(study: Study, centre: number) {
    this.study = study
    const { shape, pixel_mm, positions_mm, voxel_ml } = study.geometry
    const isKnown = study.geometry.spacing_known
    this.geometry = {
      shape: shape as [number, number, number],
      pixel_mm: pixel_mm as [number, number],
      positions_mm: isKnown ? positions_mm : positions_mm.map((_, index) => index),
      thickness_mm: thicknesses(voxel_ml, pixel_mm as [number, number]),
    }
    this.volume = huVolume(this.geometry.shape)
    this.loader = new SliceLoader(
      this.volume,
      async (first, last, signal) => (await api.hu(study.id, first, last, { signal })).buffer,
      centre,
      () => this.revision++,
    )
    this.setLayers(study)
  }

  async load(): Promise<void> {
    this.problem = ''
    try {
      await this.loader.load()
    } catch (error) {
      if (!isAbort(error)) this.problem = refusalOf(error).what
    }
  }

  /** The slice that is looked at is fetched before the others. */
  lookAt(slice: number): void {
    this.loader.centre = slice
  }

  abort(): void {
    this.loader.abort()
    for (const layer of this.layers) layer.abort()
  }

  planeAxes(plane: Plane): PlaneAxes {
    let axes = this.axes.get(plane)
    if (!axes) {
      axes = planeAxes(this.geometry, plane)
      this.axes.set(plane, axes)
    }
    return axes
  }

  /** Takes over what changed on the server; layers that are still the same keep their voxels. */
  update(study: Study): void {
    this.study = study
    this.setLayers(study)
  }

  private setLayers(study: Study): void {
    this.layers = study.layers.map((layer) => {
      const known = this.layers.find(({ id, layer: { time } }) => id === layer.id && time === layer.time)
      if (known) known.layer = layer
      return known ?? new LayerView(this, layer)
    })
  }

  layer(id: string): LayerView | undefined {
    return this.layers.find((layer) => layer.id === id)
  }

  /** The newest correction, else the newest prediction, else the truth that came along. */
  get newest(): LayerView | undefined {
    for (const kind of ['version', 'prediction', 'truth']) {
      const found = this.layers.filter(({ layer }) => layer.kind === kind)
      const last = found.sort((a, b) => a.layer.time.localeCompare(b.layer.time)).at(-1)
      if (last) return last
    }
    return undefined
  }

  get newestVersion(): number {
    const numbers = this.study.layers.filter(({ kind }) => kind === 'version').map(({ id }) => Number(id.split(':')[1]))
    return Math.max(0, ...numbers)
  }
}

/** Pixels by code of each image of a coronal or sagittal plane: (images) of (7,). */
export function countsAcross(mask: Volume<Uint8Array>, plane: Plane): Uint32Array[] {
  const [slices, rows, columns] = mask.shape
  const counts = Array.from({ length: plane === 'coronal' ? rows : columns }, () => new Uint32Array(7))
  for (let line = 0; line < slices * rows; line++) {
    for (let column = 0; column < columns; column++) {
      const code = mask.data[line * columns + column]!
      if (code) counts[plane === 'coronal' ? line % rows : column]![Math.min(code, 6)]!++
    }
  }
  return counts
}

/** mL of each code and of all, from pixels per slice; null if the spacing is unknown. */
export function volumes(counts: readonly Uint32Array[], voxelMl: readonly (number | null)[]): (number | null)[] {
  const sums = new Array<number>(7).fill(0)
  for (let slice = 0; slice < counts.length; slice++) {
    const ml = voxelMl[slice]
    if (ml === null || ml === undefined) return new Array<null>(7).fill(null)
    for (let code = 1; code < 7; code++) sums[code]! += counts[slice]![code]! * ml
  }
  sums[0] = sums.reduce((sum, ml) => sum + ml, 0)
  return sums
}
