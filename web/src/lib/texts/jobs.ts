import type { Text } from '../i18n'

/** Jobs. */
export const jobs = {
  'job.waiting': ['Waiting', 'У черзі'],
  'job.running': ['Running', 'Виконується'],
  'job.done': ['Done', 'Виконано'],
  'job.failed': ['Failed', 'Не вдалося'],
  'job.cancelled': ['Cancelled', 'Скасовано'],
} as const satisfies Record<string, Text>
