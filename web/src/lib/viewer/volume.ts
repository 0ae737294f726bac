// A scan's voxels in one typed array, and the order in which its slices are fetched.

/** Slices, rows, columns. */
export type Shape = readonly [number, number, number]

export class Volume<A extends Int16Array | Uint8Array> {
  readonly here: Uint8Array //: 1 for each slice that has arrived

  /** data: slices x rows x columns values, rows from front to back, columns from the patient's right to left. */
  constructor(
    readonly data: A,
    readonly shape: Shape,
  ) {
    if (data.length !== shape[0] * shape[1] * shape[2]) throw new RangeError('the data do not have that shape')
    this.here = new Uint8Array(shape[0])
  }

  get area(): number {
    return this.shape[1] * this.shape[2]
  }

  /** A view of one slice: what is written into it is written into the volume. */
  slice(index: number): A {
    return this.data.subarray(index * this.area, (index + 1) * this.area) as A
  }

  get whole(): boolean {
    return !this.here.includes(0)
  }
}

export function huVolume(shape: Shape): Volume<Int16Array> {
  return new Volume(new Int16Array(shape[0] * shape[1] * shape[2]).fill(-1024), shape)
}

export function maskVolume(shape: Shape): Volume<Uint8Array> {
  return new Volume(new Uint8Array(shape[0] * shape[1] * shape[2]), shape)
}

/** Fetches slices first to last, both included, as the bytes of the server. */
export type FetchSlices = (first: number, last: number, signal: AbortSignal) => Promise<ArrayBuffer>

/**
 * What to fetch next: the slice that is looked at alone, so that it shows at once, then runs of its nearest neighbours.
 *
 * wanted: 1 for each slice that is neither here nor on its way. Returns first and last, or null if nothing is wanted.
 */
export function nextRange(wanted: Uint8Array, centre: number, most: number): [number, number] | null {
  if (wanted[centre]) return [centre, centre]
  for (let distance = 1; distance < wanted.length; distance++) {
    const above = centre + distance
    const below = centre - distance
    if (above < wanted.length && wanted[above]) {
      let last = above
      while (last + 1 < wanted.length && wanted[last + 1] && last - above + 1 < most) last++
      return [above, last]
    }
    if (below >= 0 && wanted[below]) {
      let first = below
      while (first > 0 && wanted[first - 1] && below - first + 1 < most) first--
      return [first, below]
    }
  }
  return null
}

const AT_ONCE = 2
const BYTES_PER_REQUEST = 4 << 20

/** Brings a volume's slices, the nearest to `centre` first; `centre` may move while it works. */
export class SliceLoader<A extends Int16Array | Uint8Array> {
  private readonly wanted: Uint8Array
  private readonly controller = new AbortController()
  private readonly most: number
  private running = 0
  private settle: { resolve: () => void; reject: (error: unknown) => void } | null = null
  private failures = 0

  /** slices: which of them to fetch; the others count as here, and hold what they hold. */
  constructor(
    readonly volume: Volume<A>,
    private readonly fetchSlices: FetchSlices,
    public centre: number,
    private readonly onSlices: (first: number, last: number) => void = () => {},
    slices?: readonly number[],
  ) {
    this.wanted = new Uint8Array(volume.shape[0])
    for (let index = 0; index < this.wanted.length; index++) this.wanted[index] = slices ? 0 : 1
    for (const index of slices ?? []) this.wanted[index] = 1
    for (let index = 0; index < this.wanted.length; index++) if (!this.wanted[index]) volume.here[index] = 1
    this.most = Math.max(1, Math.floor(BYTES_PER_REQUEST / (volume.area * volume.data.BYTES_PER_ELEMENT)))
  }

  /** Resolves when all slices are here or `abort` was called; rejects if the server fails three times. */
  load(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.settle = { resolve, reject }
      this.pump()
    })
  }

  abort(): void {
    this.controller.abort()
    this.settle?.resolve()
  }

  private pump(): void {
    if (this.controller.signal.aborted) return
    while (this.running < AT_ONCE) {
      const range = nextRange(this.wanted, Math.min(this.centre, this.wanted.length - 1), this.most)
      if (!range) break
      this.wanted.fill(0, range[0], range[1] + 1)
      this.running++
      void this.bring(range[0], range[1])
    }
    if (this.running === 0) this.settle?.resolve()
  }

  private async bring(first: number, last: number): Promise<void> {
    const { volume } = this
    try {
      const bytes = await this.fetchSlices(first, last, this.controller.signal)
      const expected = (last - first + 1) * volume.area * volume.data.BYTES_PER_ELEMENT
      if (bytes.byteLength !== expected) throw new Error(`${bytes.byteLength} bytes came for ${expected}`)
      const values = volume.data instanceof Int16Array ? new Int16Array(bytes) : new Uint8Array(bytes)
      volume.data.set(values, first * volume.area)
      volume.here.fill(1, first, last + 1)
      this.onSlices(first, last)
    } catch (error) {
      if (this.controller.signal.aborted) return
      this.failures++
      if (this.failures >= 3) {
        this.settle?.reject(error)
        this.controller.abort()
        return
      }
      this.wanted.fill(1, first, last + 1)
      await new Promise((resolve) => setTimeout(resolve, 300 * this.failures))
    } finally {
      this.running--
    }
    this.pump()
  }
}
