/** Light, dark, or as the machine is set. */
import { Cell } from './cell.svelte'
import { remember, remembered } from './remember'

export type Theme = 'auto' | 'light' | 'dark'
export const THEMES: Theme[] = ['auto', 'light', 'dark']

const theme = new Cell<Theme>(THEMES.find((name) => name === remembered('theme')) ?? 'auto')

export function currentTheme(): Theme {
  return theme.value
}

export function setTheme(name: Theme): void {
  theme.value = name
  remember('theme', name)
  applyTheme()
}

/** app.css follows the attribute. */
export function applyTheme(): void {
  if (theme.value === 'auto') delete document.documentElement.dataset.theme
  else document.documentElement.dataset.theme = theme.value
}
