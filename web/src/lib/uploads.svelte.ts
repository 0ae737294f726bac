/** Uploads: files in pieces, some at a time, going on where they were cut off; then the job that looks for scans. */
import { api, ApiError, isAbort, refusalOf, type AppJob, type Refusal } from './api'
import { titleOf, type PathFile } from './dropped'

export const PIECE_BYTES = 8 * 1024 * 1024
const AT_ONCE = 4
const TRIES = 6
const FIRST_WAIT_MS = 500
const LOOK_MS = 3000

export type UploadStage = 'sending' | 'importing' | 'done' | 'failed' | 'cancelled'

export class Upload {
  readonly id = randomId()
  readonly title: string
  readonly count: number
  readonly bytes: number
  sent = $state(0)
  stage = $state<UploadStage>('sending')
  job = $state.raw<AppJob | null>(null)
  refused = $state.raw<Refusal[]>([])
  problem = $state.raw<Refusal | null>(null)
  private readonly stopper = new AbortController()

  constructor(
    private readonly files: PathFile[],
    private readonly predict: boolean,
  ) {
    this.title = titleOf(files)
    this.count = files.length
    this.bytes = files.reduce((sum, { file }) => sum + file.size, 0)
  }

  /** Sends all files and asks for the import. Never throws: what went wrong stands in `refused` and `problem`. */
  async start(): Promise<void> {
    try {
      const waiting = [...this.files]
      const sender = async () => {
        for (let next = waiting.shift(); next; next = waiting.shift()) await this.sendOne(next)
      }
      await Promise.all(Array.from({ length: AT_ONCE }, sender))
      if (this.refused.length === this.count) {
        this.stage = 'failed'
        await api.deleteBatch(this.id).catch(() => undefined)
        return
      }
      this.stage = 'importing'
      this.follow(await api.import({ batch: this.id, predict: this.predict }))
      await this.watch()
    } catch (error) {
      if (this.stage === 'cancelled' || isAbort(error)) return
      this.problem = refusalOf(error)
      this.stage = 'failed'
    }
  }

  /** Asks for the job now and then: the event of its end may have come before the answer that named it. */
  private async watch(): Promise<void> {
    while (this.stage === 'importing' && this.job) {
      await pause(LOOK_MS, this.stopper.signal)
      await api.job(this.job.id).then((job) => this.follow(job), () => undefined)
    }
  }

  /** Takes in what is new of its job. */
  follow(job: AppJob): void {
    if (this.job && this.job.id !== job.id) return
    this.job = job
    if (job.state === 'done') this.stage = 'done'
    else if (job.state === 'cancelled') this.stage = 'cancelled'
    else if (job.state === 'failed') {
      this.stage = 'failed'
      this.problem = job.problem
    }
  }

  /** All that could not be taken, from sending and from looking for scans. */
  get problems(): Refusal[] {
    return [...this.refused, ...(this.job?.problems ?? []), ...(this.problem ? [this.problem] : [])]
  }

  async cancel(): Promise<void> {
    const before = this.stage
    this.stage = 'cancelled'
    this.stopper.abort()
    if (before === 'sending') await api.deleteBatch(this.id).catch(() => undefined)
    else if (this.job) await api.cancelJob(this.job.id).catch(() => undefined)
  }

  private async sendOne({ path, file }: PathFile): Promise<void> {
    let offset = 0
    let tries = 0
    for (;;) {
      try {
        do {
          const piece = file.slice(offset, offset + PIECE_BYTES)
          const state = await api.upload(this.id, path, offset, file.size, piece, this.stopper.signal)
          this.sent += state.offset - offset
          offset = state.offset
          tries = 0
        } while (offset < file.size)
        return
      } catch (error) {
        if (isAbort(error)) throw error
        tries += 1
        const canPass = error instanceof ApiError && (error.status === 0 || error.status === 409 || error.status >= 500)
        if (!canPass || tries >= TRIES) {
          this.refused = [...this.refused, { ...refusalOf(error), where: path }]
          this.sent += file.size - offset
          return
        }
        await pause(FIRST_WAIT_MS * 2 ** (tries - 1), this.stopper.signal)
        const reached = await this.offsetOf(path, offset)
        this.sent += reached - offset
        offset = reached
      }
    }
  }

  /** How much of a file the server has; `otherwise` if it cannot say. */
  private async offsetOf(path: string, otherwise: number): Promise<number> {
    try {
      return (await api.batch(this.id)).files.find((file) => file.path === path)?.offset ?? 0
    } catch (error) {
      return error instanceof ApiError && error.status === 404 ? 0 : otherwise
    }
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((done, failed) => {
    const timer = setTimeout(done, milliseconds)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      failed(new DOMException('stopped', 'AbortError'))
    })
  })
}

/** crypto.randomUUID is not there on a plain http address other than localhost. */
function randomId(): string {
  return [...crypto.getRandomValues(new Uint8Array(12))].map((value) => value.toString(16).padStart(2, '0')).join('')
}

class Uploads {
  list = $state.raw<Upload[]>([])

  add(files: PathFile[], predict: boolean): void {
    if (!files.length) return
    const upload = new Upload(files, predict)
    this.list = [upload, ...this.list]
    void upload.start()
  }

  forget(upload: Upload): void {
    this.list = this.list.filter((other) => other !== upload)
  }

  get sending(): boolean {
    return this.list.some((upload) => upload.stage === 'sending')
  }
}

export const uploads = new Uploads()
