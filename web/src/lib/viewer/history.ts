// Undo and redo without limit: for each step the runs of pixels that it changed, slice by slice.

/** start, length, old code, new code of each run of pixels, one after another. */
export type Runs = Int32Array

export interface Step {
  label: string
  slices: { slice: number; runs: Runs }[]
}

/** The runs in which two states of a slice differ. */
export function runsBetween(before: Uint8Array, after: Uint8Array): Runs {
  const runs: number[] = []
  let index = 0
  while (index < before.length) {
    if (before[index] === after[index]) {
      index++
      continue
    }
    const [old, now, start] = [before[index]!, after[index]!, index]
    while (index < before.length && before[index] === old && after[index] === now) index++
    runs.push(start, index - start, old, now)
  }
  return Int32Array.from(runs)
}

/** Writes the runs' new codes into a slice, or their old ones. */
export function applyRuns(mask: Uint8Array, runs: Runs, backward: boolean): void {
  for (let index = 0; index < runs.length; index += 4) {
    const start = runs[index]!
    mask.fill(runs[index + (backward ? 2 : 3)]!, start, start + runs[index + 1]!)
  }
}

/** What was done to a mask. `touch` each slice before it is changed, then `commit`. */
export class History {
  private readonly done: Step[] = []
  private readonly undone: Step[] = []
  private readonly before = new Map<number, Uint8Array>()

  /** sliceOf: a view of one slice of the mask. */
  constructor(private readonly sliceOf: (slice: number) => Uint8Array) {}

  touch(slice: number): void {
    if (!this.before.has(slice)) this.before.set(slice, this.sliceOf(slice).slice())
  }

  /** Ends a step. Returns the slices that changed; none, and no step, if nothing did. */
  commit(label: string): number[] {
    const slices: Step['slices'] = []
    for (const [slice, before] of this.before) {
      const runs = runsBetween(before, this.sliceOf(slice))
      if (runs.length) slices.push({ slice, runs })
    }
    this.before.clear()
    if (!slices.length) return []
    this.done.push({ label, slices })
    this.undone.length = 0
    return slices.map(({ slice }) => slice)
  }

  /** Takes back what was done since the last commit. */
  cancel(): number[] {
    const slices = [...this.before.keys()]
    for (const [slice, before] of this.before) this.sliceOf(slice).set(before)
    this.before.clear()
    return slices
  }

  undo(): Step | null {
    const step = this.done.pop()
    if (!step) return null
    for (const { slice, runs } of step.slices) applyRuns(this.sliceOf(slice), runs, true)
    this.undone.push(step)
    return step
  }

  redo(): Step | null {
    const step = this.undone.pop()
    if (!step) return null
    for (const { slice, runs } of step.slices) applyRuns(this.sliceOf(slice), runs, false)
    this.done.push(step)
    return step
  }

  get canUndo(): boolean {
    return this.done.length > 0
  }

  get canRedo(): boolean {
    return this.undone.length > 0
  }

  get steps(): number {
    return this.done.length
  }
}
