import { expect, it } from 'vitest'
import { parseRoute } from './router'

it.each([
  ['/', 'worklist', ''],
  ['/studies/study-1a2b', 'study', 'study-1a2b'],
  ['/studies/', 'missing', ''],
  ['/studies/a/b', 'missing', ''],
  ['/jobs', 'jobs', ''],
  ['/jobs/7', 'missing', ''],
  ['/teach/first%20try', 'teach', 'first try'],
  ['/help/', 'help', ''],
  ['/%E0%A4%A', 'missing', ''],
])('%s is %s %s', (path, page, id) => {
  expect(parseRoute(path)).toMatchObject({ page, id })
})

it('keeps the query', () => {
  expect(parseRoute('/studies/a', '?slice=4&window=brain').query.get('slice')).toBe('4')
})
