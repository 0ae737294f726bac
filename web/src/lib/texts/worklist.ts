import type { Text } from '../i18n'

/** The worklist: search, rows, adding scans. */
export const worklist = {
  'worklist.search': ['Search', 'Пошук'],
  'worklist.count': [
    { one: '{n} study', other: '{n} studies' },
    { one: '{n} дослідження', few: '{n} дослідження', many: '{n} досліджень', other: '{n} дослідження' },
  ],
} as const satisfies Record<string, Text>
