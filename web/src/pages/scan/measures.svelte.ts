// A reader's rulers, angles and circles, kept on the server.

import { ApiError, api, refusalOf, type Measurement } from '../../lib/api'

export class Measures {
  items = $state.raw<Measurement[]>([])
  /** The one being drawn, its last point under the pointer. */
  draft = $state.raw<Measurement | null>(null)
  problem = $state('')
  private revision = 0
  private saving: Promise<void> = Promise.resolve()

  constructor(
    private readonly study: string,
    private readonly mayWrite: boolean,
  ) {}

  async load(): Promise<void> {
    try {
      const found = await api.measurements(this.study)
      this.items = found.items
      this.revision = found.revision ?? 0
    } catch (error) {
      this.problem = refusalOf(error).what
    }
  }

  add(item: Measurement): void {
    this.items = [...this.items, item]
    this.save((items) => [...items, item])
  }

  remove(item: Measurement): void {
    this.items = this.items.filter((other) => other !== item)
    const text = JSON.stringify(item)
    this.save((items) => items.filter((other) => JSON.stringify(other) !== text))
  }

  /** change: what was done, to be done again on what another tab saved meanwhile. */
  private save(change: (items: Measurement[]) => Measurement[]): void {
    if (!this.mayWrite) return
    this.saving = this.saving.then(async () => {
      try {
        await this.put()
      } catch (error) {
        if (!(error instanceof ApiError) || error.status !== 412) {
          this.problem = refusalOf(error).what
          return
        }
        await this.load()
        this.items = change(this.items)
        await this.put().catch((again: unknown) => (this.problem = refusalOf(again).what))
      }
    })
  }

  private async put(): Promise<void> {
    const saved = await api.saveMeasurements(this.study, { items: this.items, revision: this.revision })
    this.revision = saved.revision ?? 0
    this.problem = ''
  }
}
