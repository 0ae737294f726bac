/** Addresses of pages: the history interface, without a library. */
import { Cell } from './cell.svelte'

export type Page = 'worklist' | 'study' | 'jobs' | 'teach' | 'models' | 'recipes' | 'audit' | 'help' | 'missing'

export interface Route {
  page: Page
  /** Of a study's page its id, of a training's its name; else "". */
  id: string
  query: URLSearchParams
}

const PAGES: Record<string, Page> = {
  jobs: 'jobs',
  teach: 'teach',
  models: 'models',
  recipes: 'recipes',
  audit: 'audit',
  help: 'help',
}

/** Which page an address means. */
export function parseRoute(path: string, search = ''): Route {
  const query = new URLSearchParams(search)
  const [first = '', second = '', ...more] = path.split('/').filter(Boolean).map(decode)
  if (!first) return { page: 'worklist', id: '', query }
  if (first === 'studies' && second && !more.length) return { page: 'study', id: second, query }
  const page = PAGES[first]
  if (page && !more.length && (!second || page === 'teach')) return { page, id: second, query }
  return { page: 'missing', id: '', query }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

const here = () => parseRoute(location.pathname, location.search)
const current = new Cell<Route>(typeof location === 'undefined' ? parseRoute('/') : here())

/** The page that is shown; follows the address. */
export function route(): Route {
  return current.value
}

/** Goes to an address of this app, such as "/studies/study-1?slice=4". */
export function navigate(to: string): void {
  history.pushState(null, '', to)
  current.value = here()
  scrollTo(0, 0)
}

/** Changes the query of this address without a new entry in the history and without leaving the page. */
export function replaceQuery(values: Record<string, string | number | undefined>): void {
  const url = new URL(location.href)
  for (const [key, value] of Object.entries(values)) {
    if (value === undefined || value === '') url.searchParams.delete(key)
    else url.searchParams.set(key, String(value))
  }
  history.replaceState(history.state, '', url)
}

/** Follows the back button, and makes plain links to pages change the page without loading it anew. */
export function startRouter(): void {
  addEventListener('popstate', () => (current.value = here()))
  document.addEventListener('click', (event) => {
    if (event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return
    const link = event.target instanceof Element ? event.target.closest('a[href]') : null
    if (!(link instanceof HTMLAnchorElement) || link.target || link.hasAttribute('download')) return
    const url = new URL(link.href)
    if (url.origin !== location.origin || url.pathname.startsWith('/api/') || link.getAttribute('href')?.startsWith('#')) {
      return
    }
    event.preventDefault()
    navigate(url.pathname + url.search)
  })
}
