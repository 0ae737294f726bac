import { createServer, type IncomingMessage, type Server } from 'node:http'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { address, api, ApiError, isAbort, piece, readRefusal } from './api'

let server: Server
let seen: { url: string; method: string; headers: IncomingMessage['headers']; body: string }[] = []
let answer: { status: number; body: string | Buffer } | null
const realFetch = globalThis.fetch

// Pages ask by path; Node's fetch wants a whole address. Everything else is the real thing.
beforeEach(async () => {
  seen = []
  server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk) => (body += chunk))
    request.on('end', () => {
      seen.push({ url: request.url ?? '', method: request.method ?? '', headers: request.headers, body })
      if (answer) response.writeHead(answer.status).end(answer.body)
    })
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const { port } = server.address() as { port: number }
  vi.stubGlobal('fetch', (path: string, init: RequestInit) => realFetch(`http://127.0.0.1:${port}${path}`, init))
})
afterEach(() => {
  vi.unstubAllGlobals()
  server.closeAllConnections()
  server.close()
})

it('writes addresses', () => {
  expect(address('/studies', { query: 'a&b', cursor: '', limit: 50, state: undefined })).toBe(
    '/api/v1/studies?query=a%26b&limit=50',
  )
  expect(piece('version:2')).toBe('version:2')
  expect(piece('../x')).toBe('..%2Fx')
})

it('reads a refusal in every shape', () => {
  expect(readRefusal(400, { what: 'no', where: 'a.dcm', todo: 'do' })).toEqual({ what: 'no', where: 'a.dcm', todo: 'do' })
  expect(readRefusal(404, { detail: 'gone' }).what).toBe('gone')
  expect(readRefusal(422, { detail: [{ msg: 'too long', loc: ['body', 'note'] }] })).toEqual({
    what: 'too long', where: 'body note', todo: '',
  })
  expect(readRefusal(502, null).what).toBe('HTTP 502')
})

it('throws what the server says, with the newest version of a conflict', async () => {
  answer = { status: 409, body: JSON.stringify({ number: 3 }) }
  const error = await api.saveVersion('study-1', { after: 2 }).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(ApiError)
  expect((error as ApiError).status).toBe(409)
  expect((error as ApiError).body).toEqual({ number: 3 })
  expect(seen[0]).toMatchObject({ method: 'POST', url: '/api/v1/studies/study-1/versions', body: '{"after":2}' })
})

it('sends a draft with If-Match', async () => {
  answer = { status: 200, body: '{"study":"s","base":"b","revision":5,"time":""}' }
  const saved = await api.saveDraft('s', 'prediction:box', 4, new Uint8Array([1, 2]))
  expect(saved.revision).toBe(5)
  expect(seen[0]?.headers['if-match']).toBe('"4"')
  expect(seen[0]?.url).toBe('/api/v1/studies/s/draft?base=prediction%3Abox')
})

it('has no draft if the server knows none', async () => {
  answer = { status: 200, body: 'null' }
  expect(await api.draft('s')).toBeNull()
})

it('reads slices as int16', async () => {
  answer = { status: 200, body: Buffer.from(new Int16Array([-1000, 40]).buffer) }
  expect([...(await api.hu('s', 0, 1))]).toEqual([-1000, 40])
})

it('says that the server does not answer', async () => {
  await new Promise((done) => server.close(done))
  const error = await api.models().catch((reason: unknown) => reason)
  expect((error as ApiError).status).toBe(0)
})

it('ends if it is aborted', async () => {
  answer = null
  const stopper = new AbortController()
  const waiting = api.hu('s', 0, 1, { signal: stopper.signal }).catch((reason: unknown) => reason)
  await vi.waitFor(() => expect(seen).toHaveLength(1))
  stopper.abort()
  expect(isAbort(await waiting)).toBe(true)
})
