/** The server's events: one stream for all pages, opened again whenever it breaks. */
import { ROOT } from './api'
import { Cell } from './cell.svelte'

export type EventName = 'study' | 'job' | 'training' | 'resync'
export type Listener = (data: unknown) => void

/** What an EventSource must have; the browser's own, or a test's. */
export interface Source {
  readonly readyState: number
  onopen: ((event: Event) => unknown) | null
  onerror: ((event: Event) => unknown) | null
  addEventListener(name: string, listener: (event: MessageEvent) => void): void
  close(): void
}

const NAMES: EventName[] = ['study', 'job', 'training', 'resync']
const CLOSED = 2
const FIRST_WAIT_MS = 1000
const LONGEST_WAIT_MS = 30_000

export class Events {
  /** Whether the stream is open: what the pages show is as new as it can be. */
  readonly open = new Cell(false)
  private listeners = new Map<EventName, Set<Listener>>()
  private source: Source | null = null
  private timer: ReturnType<typeof setTimeout> | undefined
  private wait = FIRST_WAIT_MS
  private openedBefore = false

  constructor(
    private readonly make: () => Source = () => new EventSource(`${ROOT}/events`),
    private readonly firstWait = FIRST_WAIT_MS,
  ) {
    this.wait = firstWait
  }

  start(): void {
    if (this.source) return
    const source = this.make()
    this.source = source
    let broken = false
    source.onopen = () => {
      this.open.value = true
      this.wait = this.firstWait
      // A new EventSource has no Last-Event-ID: what happened in between must be asked for. One that the browser
      // itself connected again has one, and the server goes on after it or says "resync".
      if (this.openedBefore && !broken) this.tell('resync', null)
      this.openedBefore = true
      broken = false
    }
    source.onerror = () => {
      this.open.value = false
      broken = true
      // The browser connects again by itself unless it was refused.
      if (source.readyState !== CLOSED) return
      this.stop()
      this.timer = setTimeout(() => this.start(), this.wait)
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT_MS)
    }
    for (const name of NAMES) {
      source.addEventListener(name, (event) => this.tell(name, parse(event.data)))
    }
  }

  stop(): void {
    clearTimeout(this.timer)
    this.source?.close()
    this.source = null
    this.open.value = false
  }

  /** Calls the listener with each event of that name; the returned function ends it. */
  on(name: EventName, listener: Listener): () => void {
    const listeners = this.listeners.get(name) ?? new Set()
    this.listeners.set(name, listeners.add(listener))
    return () => listeners.delete(listener)
  }

  private tell(name: EventName, data: unknown): void {
    for (const listener of this.listeners.get(name) ?? []) listener(data)
  }
}

function parse(text: unknown): unknown {
  try {
    return JSON.parse(String(text))
  } catch {
    return null
  }
}

export const events = new Events()
