import { createServer, type Server } from 'node:http'
import { afterEach, expect, it, vi } from 'vitest'
import { Events, type Source } from './events'

/** Server-sent events over a real connection, read as the browser reads them; Node 20 has no EventSource. */
class NodeSource implements Source {
  readyState = 0
  onopen: ((event: Event) => unknown) | null = null
  onerror: ((event: Event) => unknown) | null = null
  private listeners = new Map<string, (event: MessageEvent) => void>()
  private stopper = new AbortController()

  constructor(url: string) {
    void this.read(url)
  }

  addEventListener(name: string, listener: (event: MessageEvent) => void) {
    this.listeners.set(name, listener)
  }

  close() {
    this.readyState = 2
    this.stopper.abort()
  }

  private async read(url: string) {
    try {
      const answer = await fetch(url, { signal: this.stopper.signal })
      if (!answer.ok || !answer.body) throw new Error(String(answer.status))
      this.readyState = 1
      this.onopen?.(new Event('open'))
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
      for (let chunk = await reader.read(); !chunk.done; chunk = await reader.read()) {
        for (const block of chunk.value.split('\n\n').filter(Boolean)) {
          const name = /event: (.*)/.exec(block)?.[1] ?? 'message'
          this.listeners.get(name)?.(new MessageEvent(name, { data: /data: (.*)/.exec(block)?.[1] }))
        }
      }
    } catch {
      // refused or cut off
    }
    if (this.readyState === 2) return
    this.readyState = 2
    this.onerror?.(new Event('error'))
  }
}

let server: Server | undefined
afterEach(() => server?.close())

it('tells each event, connects again after a refusal and then says resync', async () => {
  const answers = [
    (end: () => void) => ['event: study\ndata: {"id":"study-1"}\n\n', end] as const,
    null,
    () => ['event: job\ndata: {"id":"7"}\n\n', null] as const,
  ]
  let asked = 0
  server = createServer((_request, response) => {
    const answer = answers[asked++]
    if (!answer) return void response.writeHead(503).end()
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    const [text, end] = answer(() => response.end())
    response.write(text)
    if (end) setTimeout(end, 20)
  })
  const port = await new Promise<number>((done) => {
    server?.listen(0, '127.0.0.1', () => done((server?.address() as { port: number }).port))
  })

  const events = new Events(() => new NodeSource(`http://127.0.0.1:${port}/`), 5)
  const said: [string, unknown][] = []
  for (const name of ['study', 'job', 'resync'] as const) events.on(name, (data) => said.push([name, data]))
  events.start()
  await vi.waitFor(() => expect(said).toHaveLength(3))
  expect(said).toEqual([['study', { id: 'study-1' }], ['resync', null], ['job', { id: '7' }]])
  expect(asked).toBe(3)
  expect(events.open.value).toBe(true)
  events.stop()
  expect(events.open.value).toBe(false)
})
