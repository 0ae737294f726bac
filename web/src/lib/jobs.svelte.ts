/** Jobs that wait or run, for the number beside "Jobs" and for all pages that wait for one. */
import { api, type AppJob } from './api'
import { events } from './events'
import { uploads } from './uploads.svelte'

const PAUSE_MS = 300

class ActiveJobs {
  list = $state.raw<AppJob[]>([])
  private timer: ReturnType<typeof setTimeout> | undefined
  private busy = false
  private again = false

  /** Follows the server's events until the returned function is called. */
  start(): () => void {
    const soon = (data: unknown) => {
      if (isJob(data)) for (const upload of uploads.list) if (upload.job?.id === data.id) upload.follow(data)
      this.timer ??= setTimeout(() => {
        this.timer = undefined
        void this.load()
      }, PAUSE_MS)
    }
    const ends = [events.on('job', soon), events.on('resync', soon)]
    void this.load()
    return () => {
      clearTimeout(this.timer)
      this.timer = undefined
      for (const end of ends) end()
    }
  }

  async load(): Promise<void> {
    if (this.busy) {
      this.again = true
      return
    }
    this.busy = true
    try {
      const [running, waiting] = await Promise.all([api.jobs({ state: 'running' }), api.jobs({ state: 'waiting' })])
      this.list = [...running.jobs, ...waiting.jobs]
      await this.tellUploads()
    } catch {
      // the frame says that the server does not answer; the next event asks again
    }
    this.busy = false
    if (this.again) {
      this.again = false
      void this.load()
    }
  }

  private async tellUploads(): Promise<void> {
    for (const upload of uploads.list) {
      if (upload.stage !== 'importing' || !upload.job) continue
      const id = upload.job.id
      upload.follow(this.list.find((job) => job.id === id) ?? (await api.job(id)))
    }
  }
}

function isJob(data: unknown): data is AppJob {
  return typeof data === 'object' && data !== null && 'id' in data && 'state' in data
}

export const activeJobs = new ActiveJobs()
