/** Who is looking and what this server can do: asked for once, shared by all pages. */
import { api, ApiError, refusalOf, type ReaderSession, type Refusal, type SessionChange } from './api'
import { Cell } from './cell.svelte'

const current = new Cell<ReaderSession | null>(null)
const problem = new Cell<Refusal | null>(null)
const signedOut = new Cell(false)

/** null until the server has answered. */
export const session = (): ReaderSession | null => current.value
export const sessionProblem = (): Refusal | null => problem.value
export const isSignedOut = (): boolean => signedOut.value
export const mayWrite = (): boolean => current.value?.role === 'write'

export async function loadSession(): Promise<void> {
  problem.value = null
  try {
    current.value = await api.session()
    signedOut.value = false
  } catch (error) {
    signedOut.value = error instanceof ApiError && (error.status === 401 || error.status === 403)
    problem.value = refusalOf(error)
  }
}

export async function changeSession(change: SessionChange): Promise<void> {
  current.value = await api.changeSession(change)
}
