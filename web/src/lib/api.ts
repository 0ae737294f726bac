/** The REST interface, /api/v1, typed. An answer that is no answer is thrown as an ApiError with the server's Refusal. */
import type {
  AppJob,
  AuditPage,
  CorrectedSet,
  DatasetRequest,
  Draft,
  FolderEntry,
  ImportRequest,
  JobPage,
  LayerComparison,
  Measurements,
  ModelInfo,
  PredictRequest,
  ReaderSession,
  RecipeKey,
  Refusal,
  SessionChange,
  Study,
  StudyChange,
  StudyPage,
  Teaching,
  TrainingEstimate,
  TrainingRequest,
  UploadBatch,
  UploadState,
  Version,
  VersionRequest,
  Watch,
} from './api/schema'

export type * from './api/schema'

export const ROOT = '/api/v1'

/** What a query may hold; undefined and "" are left out. */
export type Query = Record<string, string | number | boolean | undefined>

export interface Options {
  query?: Query
  signal?: AbortSignal
  headers?: Record<string, string>
}

/** The server refused, or could not be reached (status 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly refusal: Refusal,
    /** What the answer said besides: the newest Version of a 409. */
    readonly body: unknown = null,
  ) {
    super(refusal.what)
    this.name = 'ApiError'
  }
}

/** Whether a promise ended because its AbortController was asked to. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

/** Anything that was thrown, as a Refusal to show. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof ApiError) return error.refusal
  return { what: error instanceof Error ? error.message : String(error), where: '', todo: '' }
}

/** The address of a path below /api/v1, with its query. Path pieces are the caller's to encode: see `piece`. */
export function address(path: string, query: Query = {}): string {
  const words = new URLSearchParams()
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== '') words.set(key, String(value))
  }
  const text = words.toString()
  return `${ROOT}${path}${text ? `?${text}` : ''}`
}

/** A name as one piece of a path: "version:2" stays as it is, "a/b" does not split. */
export function piece(name: string): string {
  return encodeURIComponent(name).replaceAll('%3A', ':')
}

/** The Refusal in an answer's body, in any of the shapes that a server or a proxy before it gives. */
export function readRefusal(status: number, body: unknown): Refusal {
  if (typeof body === 'object' && body !== null) {
    const said = body as Record<string, unknown>
    if (typeof said.what === 'string') {
      return { what: said.what, where: String(said.where ?? ''), todo: String(said.todo ?? '') }
    }
    if (said.detail !== undefined) return readDetail(status, said.detail)
  }
  return { what: `HTTP ${status}`, where: '', todo: '' }
}

function readDetail(status: number, detail: unknown): Refusal {
  if (typeof detail === 'string') return { what: detail, where: '', todo: '' }
  if (Array.isArray(detail)) {
    const first = detail[0] as { msg?: string; loc?: unknown[] } | undefined
    if (first?.msg) return { what: first.msg, where: (first.loc ?? []).join(' '), todo: '' }
  }
  return readRefusal(status, detail)
}

/** An answer with a 2xx status, or an ApiError. */
export async function call(method: string, path: string, body?: BodyInit | null, options: Options = {}): Promise<Response> {
  let answer: Response
  try {
    answer = await fetch(address(path, options.query), {
      method,
      body: body ?? null,
      signal: options.signal ?? null,
      headers: { Accept: 'application/json, */*;q=0.5', ...options.headers },
      credentials: 'same-origin',
    })
  } catch (error) {
    if (isAbort(error)) throw error
    throw new ApiError(0, { what: 'the server does not answer', where: '', todo: '' })
  }
  if (answer.ok) return answer
  const text = await answer.text()
  let said: unknown = null
  try {
    said = JSON.parse(text)
  } catch {
    // not the server's own answer: a proxy's page
  }
  throw new ApiError(answer.status, readRefusal(answer.status, said), said)
}

async function get<T>(path: string, options: Options = {}): Promise<T> {
  return (await (await call('GET', path, null, options)).json()) as T
}

async function send<T>(method: string, path: string, body: unknown, options: Options = {}): Promise<T> {
  const headers = { 'Content-Type': 'application/json', ...options.headers }
  const answer = await call(method, path, body === undefined ? null : JSON.stringify(body), { ...options, headers })
  return (answer.status === 204 ? undefined : await answer.json()) as T
}

async function bytes(path: string, options: Options): Promise<ArrayBuffer> {
  return (await call('GET', path, null, options)).arrayBuffer()
}

/** A revision as If-Match and ETag write it. */
export function etag(revision: number): string {
  return `"${revision}"`
}

const study = (id: string) => `/studies/${piece(id)}`

export const api = {
  session: (options?: Options) => get<ReaderSession>('/session', options),
  changeSession: (change: SessionChange) => send<ReaderSession>('PATCH', '/session', change),

  studies: (query: Query, signal?: AbortSignal) => get<StudyPage>('/studies', { query, ...(signal && { signal }) }),
  study: (id: string, options?: Options) => get<Study>(study(id), options),
  changeStudy: (id: string, change: StudyChange) => send<Study>('PATCH', study(id), change),
  deleteStudy: (id: string) => send<void>('DELETE', study(id), undefined),
  thumbnail: (id: string, revision: number) => address(`${study(id)}/thumbnail.jpg`, { revision }),
  csv: (query: Query) => address('/studies.csv', query),

  /** HU of slices first..last, both included: (slices, rows, columns) int16, C order. */
  hu: async (id: string, first: number, last: number, options: Options = {}) =>
    new Int16Array(await bytes(`${study(id)}/hu`, { ...options, query: { first, last, ...options.query } })),
  /** Codes of slices first..last of a layer. */
  mask: async (id: string, layer: string, first: number, last: number, options: Options = {}) =>
    new Uint8Array(
      await bytes(`${study(id)}/mask/${piece(layer)}`, { ...options, query: { first, last, ...options.query } }),
    ),
  /** Probabilities of slices first..last of a layer, 0 to 255. */
  probability: async (id: string, layer: string, first: number, last: number, options: Options = {}) =>
    new Uint8Array(
      await bytes(`${study(id)}/probability/${piece(layer)}`, { ...options, query: { first, last, ...options.query } }),
    ),

  /** The reader's unsaved correction, null if there is none. */
  draft: (id: string) => get<Draft | null>(`${study(id)}/draft`),
  draftMask: async (id: string) => new Uint8Array(await bytes(`${study(id)}/draft/mask`, {})),
  /** revision: of the draft that this one replaces, 0 if there is none. A 412 says that another tab saved meanwhile. */
  saveDraft: async (id: string, base: string, revision: number, body: BodyInit, gzip = false): Promise<Draft> => {
    const headers: Record<string, string> = { 'Content-Type': 'application/octet-stream', 'If-Match': etag(revision) }
    if (gzip) headers['Content-Encoding'] = 'gzip'
    return (await (await call('PUT', `${study(id)}/draft`, body, { query: { base }, headers })).json()) as Draft
  },
  deleteDraft: (id: string) => send<void>('DELETE', `${study(id)}/draft`, undefined),
  versions: (id: string) => get<Version[]>(`${study(id)}/versions`),
  /** A 409 has the newest Version in ApiError.body. */
  saveVersion: (id: string, request: VersionRequest) => send<Version>('POST', `${study(id)}/versions`, request),
  versionFile: (id: string, number: number, name: string) => `${ROOT}${study(id)}/versions/${number}/files/${piece(name)}`,
  compare: (id: string, a: string, b: string) => get<LayerComparison>(`${study(id)}/compare`, { query: { a, b } }),
  measurements: (id: string) => get<Measurements>(`${study(id)}/measurements`),
  saveMeasurements: (id: string, value: Measurements) =>
    send<Measurements>('PUT', `${study(id)}/measurements`, value, { headers: { 'If-Match': etag(value.revision ?? 0) } }),

  upload: async (batch: string, path: string, offset: number, total: number, body: Blob, signal?: AbortSignal) => {
    const inside = path.split('/').map(piece).join('/')
    const options = { query: { offset, bytes: total }, headers: { 'Content-Type': 'application/octet-stream' } }
    const answer = await call('PUT', `/uploads/${piece(batch)}/${inside}`, body, { ...options, ...(signal && { signal }) })
    return (await answer.json()) as UploadState
  },
  batch: (batch: string) => get<UploadBatch>(`/uploads/${piece(batch)}`),
  deleteBatch: (batch: string) => send<void>('DELETE', `/uploads/${piece(batch)}`, undefined),
  import: (request: ImportRequest) => send<AppJob>('POST', '/imports', request),
  folders: (path: string) => get<FolderEntry[]>('/folders', { query: { path } }),
  watches: () => get<Watch[]>('/watches'),
  watch: (watch: Watch) => send<Watch>('POST', '/watches', watch),
  unwatch: (folder: string) => send<void>('DELETE', '/watches', undefined, { query: { folder } }),

  jobs: (query: Query = {}) => get<JobPage>('/jobs', { query }),
  job: (id: string) => get<AppJob>(`/jobs/${piece(id)}`),
  jobLog: async (id: string) => (await call('GET', `/jobs/${piece(id)}/log`)).text(),
  cancelJob: (id: string) => send<AppJob>('POST', `/jobs/${piece(id)}/cancel`, undefined),
  retryJob: (id: string) => send<AppJob>('POST', `/jobs/${piece(id)}/retry`, undefined),
  predict: (request: PredictRequest) => send<AppJob[]>('POST', '/predictions', request),

  models: () => get<ModelInfo[]>('/models'),
  useModel: (name: string) => send<ModelInfo>('POST', `/models/${piece(name)}/use`, undefined),
  datasets: () => get<CorrectedSet[]>('/datasets'),
  makeDataset: (request: DatasetRequest) => send<AppJob>('POST', '/datasets', request),
  datasetZip: (name: string) => `${ROOT}/datasets/${piece(name)}.zip`,
  trainings: () => get<Teaching[]>('/trainings'),
  training: (name: string) => get<Teaching>(`/trainings/${piece(name)}`),
  estimate: (request: TrainingRequest) => send<TrainingEstimate>('POST', '/trainings/estimate', request),
  train: (request: TrainingRequest) => send<Teaching>('POST', '/trainings', request),
  stopTraining: (name: string) => send<Teaching>('POST', `/trainings/${piece(name)}/stop`, undefined),
  resumeTraining: (name: string) => send<Teaching>('POST', `/trainings/${piece(name)}/resume`, undefined),
  recipes: () => get<Record<string, string>>('/recipes'),
  recipeKeys: () => get<RecipeKey[]>('/recipes/keys'),
  audit: (cursor = '') => get<AuditPage>('/audit', { query: { cursor } }),
}
