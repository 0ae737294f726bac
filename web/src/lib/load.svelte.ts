/** Something that a page asks the server for: loading, there, or failed. A newer question ends an older one. */
import { isAbort, refusalOf, type Refusal } from './api'

export class Loaded<T> {
  value = $state.raw<T | null>(null)
  problem = $state.raw<Refusal | null>(null)
  private asked = 0

  constructor(private readonly ask: () => Promise<T>) {}

  async load(): Promise<void> {
    const number = ++this.asked
    try {
      const value = await this.ask()
      if (number !== this.asked) return
      this.value = value
      this.problem = null
    } catch (error) {
      if (number === this.asked && !isAbort(error)) this.problem = refusalOf(error)
    }
  }
}

/** Does something for a button; holds that it is under way, and why it failed. */
export class Action {
  busy = $state(false)
  problem = $state.raw<Refusal | null>(null)

  async run(work: () => Promise<unknown>): Promise<boolean> {
    this.busy = true
    this.problem = null
    try {
      await work()
      return true
    } catch (error) {
      this.problem = refusalOf(error)
      return false
    } finally {
      this.busy = false
    }
  }
}

/** Calls a function soon, at most once per pause however often it is asked for; `stop` when the page goes. */
export function throttle(work: () => unknown, milliseconds: number): { soon: () => void; stop: () => void } {
  let timer: ReturnType<typeof setTimeout> | undefined
  return {
    soon: () => {
      timer ??= setTimeout(() => {
        timer = undefined
        void work()
      }, milliseconds)
    },
    stop: () => clearTimeout(timer),
  }
}
