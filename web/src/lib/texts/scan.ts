import type { Text } from '../i18n'

/** The Scan page: viewer, measurements, correction. */
export const scan = {
  'scan.title': ['Scan', 'Знімок'],
} as const satisfies Record<string, Text>
