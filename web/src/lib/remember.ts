/** What this browser remembers of a reader: language, theme, sorting. Never anything of a patient. */
const PREFIX = 'hemotorch.'

export function remembered(key: string): string | null {
  try {
    return localStorage.getItem(PREFIX + key)
  } catch {
    return null // storage is switched off
  }
}

export function remember(key: string, value: string): void {
  try {
    localStorage.setItem(PREFIX + key, value)
  } catch {
    // storage is switched off or full: the choice lasts until the page is closed
  }
}
