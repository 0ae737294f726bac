/** The worklist's page of studies: what is asked for, what came, and where in the list it lies. */
import { api, isAbort, refusalOf, type Query, type Refusal, type StudySummary } from './api'
import { remember, remembered } from './remember'
import { replaceQuery } from './router'

export const SORTS = ['priority', 'added', 'date', 'ml', 'name', 'state'] as const
export type Sort = (typeof SORTS)[number]
export type Filter = 'query' | 'state' | 'stage' | 'doubts' | 'bleeding'
export const FILTERS: Filter[] = ['query', 'state', 'stage', 'doubts', 'bleeding']
export const LIMIT = 50
/** Which way a sort goes unless it is turned; the server's own defaults. */
export const FALLING: Record<Sort, boolean> = {
  priority: false, added: true, date: true, ml: true, name: false, state: false,
}

export class WorklistPage {
  filters = $state<Record<Filter, string>>({ query: '', state: '', stage: '', doubts: '', bleeding: '' })
  sort = $state<Sort>('priority')
  falling = $state(false)
  studies = $state.raw<StudySummary[]>([])
  total = $state(0)
  /** Studies before this page. */
  before = $state(0)
  loaded = $state(false)
  problem = $state.raw<Refusal | null>(null)
  private cursors: string[] = ['']
  private next = ''
  private stopper: AbortController | null = null

  constructor(query: URLSearchParams) {
    for (const name of FILTERS) this.filters[name] = query.get(name) ?? ''
    this.sort = SORTS.find((name) => name === (query.get('sort') ?? remembered('sort'))) ?? 'priority'
    const order = query.get('order')
    this.falling = order ? order === 'desc' : FALLING[this.sort]
  }

  get filtered(): boolean {
    return FILTERS.some((name) => this.filters[name])
  }

  get hasNext(): boolean {
    return this.next !== ''
  }

  /** What the server is asked; the CSV has the same. */
  get query(): Query {
    const order = this.falling === FALLING[this.sort] ? undefined : this.falling ? 'desc' : 'asc'
    return { ...this.filters, sort: this.sort, order }
  }

  setFilter(name: Filter, value: string): void {
    this.filters[name] = value
    this.changed()
  }

  clear(): void {
    for (const name of FILTERS) this.filters[name] = ''
    this.changed()
  }

  /** Sorts by a column; by the same one again, the other way round. */
  setSort(sort: Sort, turn = true): void {
    this.falling = sort === this.sort && turn ? !this.falling : FALLING[sort]
    this.sort = sort
    remember('sort', sort)
    this.changed()
  }

  private changed(): void {
    const { sort, order, ...filters } = this.query as Record<string, string | undefined>
    replaceQuery({ ...filters, sort: sort === 'priority' ? undefined : sort, order })
    this.cursors = ['']
    this.before = 0
    void this.load()
  }

  goNext(): void {
    if (!this.next) return
    this.cursors.push(this.next)
    this.before += this.studies.length
    void this.load()
  }

  goBack(): void {
    if (this.cursors.length < 2) return
    this.cursors.pop()
    this.before = Math.max(0, this.before - LIMIT)
    void this.load()
  }

  /** Asks for this page; a newer question ends an older one. */
  async load(): Promise<void> {
    this.stopper?.abort()
    const stopper = new AbortController()
    this.stopper = stopper
    try {
      const cursor = this.cursors.at(-1)
      const page = await api.studies({ ...this.query, cursor, limit: LIMIT }, stopper.signal)
      if (!page.studies.length && this.cursors.length > 1) return this.goBack() // the last page was deleted
      this.studies = page.studies
      this.total = page.total
      this.next = page.next
      this.problem = null
      this.loaded = true
    } catch (error) {
      if (!isAbort(error)) this.problem = refusalOf(error)
    }
  }
}
