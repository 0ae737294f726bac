/** English and Ukrainian: `t('key')`, numbers, dates. All words are in texts/. */
import { Cell } from './cell.svelte'
import { remember, remembered } from './remember'
import { texts, type TextKey } from './texts'

export type { TextKey } from './texts'
export type Language = 'en' | 'uk'
export const LANGUAGES: Language[] = ['en', 'uk']
export const LANGUAGE_NAMES: Record<Language, string> = { en: 'English', uk: 'Українська' }

/** In one language a text, or one for each plural form that Intl.PluralRules tells apart. */
export type Forms = string | Partial<Record<Intl.LDMLPluralRule, string>>
/** English, Ukrainian. {name} stands for a value; {n} chooses the plural form. */
export type Text = readonly [en: Forms, uk: Forms]
export type Values = Record<string, string | number>

const LOCALES: Record<Language, string> = { en: 'en-GB', uk: 'uk-UA' }

function first(): Language {
  const chosen = LANGUAGES.find((name) => name === remembered('language'))
  if (chosen) return chosen
  return typeof navigator !== 'undefined' && navigator.language.startsWith('uk') ? 'uk' : 'en'
}

const current = new Cell<Language>(first())

export function language(): Language {
  return current.value
}

export function setLanguage(name: Language): void {
  current.value = name
  remember('language', name)
  if (typeof document !== 'undefined') document.documentElement.lang = name
}

/** The text of a key in the reader's language. Numbers among the values are written as that language writes them. */
export function t(key: TextKey, values: Values = {}): string {
  return fill(texts[key], current.value, values)
}

/** As t, for a key made at run time, such as `stage.${study.stage}`; `otherwise` if there is no such text. */
export function tOr(key: string, otherwise: string, values: Values = {}): string {
  return key in texts ? t(key as TextKey, values) : otherwise
}

/** A text in a language, with its values filled in. */
export function fill(text: Text, name: Language, values: Values): string {
  const forms = text[name === 'en' ? 0 : 1]
  const sentence = typeof forms === 'string' ? forms : choose(forms, name, values.n)
  return sentence.replace(/\{(\w+)\}/g, (whole, key: string) => {
    const value = values[key]
    if (value === undefined) return whole
    return typeof value === 'number' ? new Intl.NumberFormat(LOCALES[name]).format(value) : value
  })
}

function choose(forms: Partial<Record<Intl.LDMLPluralRule, string>>, name: Language, n: unknown): string {
  const rule = new Intl.PluralRules(LOCALES[name]).select(typeof n === 'number' ? n : 0)
  return forms[rule] ?? forms.other ?? forms.many ?? ''
}

/** A number with so many decimals; "–" if it is not known. */
export function number(value: number | null | undefined, decimals = 0): string {
  if (value === null || value === undefined || Number.isNaN(value)) return '–'
  const format = { minimumFractionDigits: decimals, maximumFractionDigits: decimals }
  return new Intl.NumberFormat(LOCALES[current.value], format).format(value)
}

/** A volume: one decimal, from 100 mL on none. */
export function ml(value: number | null | undefined): string {
  if (value === null || value === undefined) return '–'
  return `${number(value, Math.abs(value) < 99.95 ? 1 : 0)} ${t('unit.ml')}`
}

export function bytes(value: number): string {
  if (value < 1e6) return `${number(value / 1e3, 0)} ${t('unit.kb')}`
  return value < 1e9 ? `${number(value / 1e6, 1)} ${t('unit.mb')}` : `${number(value / 1e9, 2)} ${t('unit.gb')}`
}

/** A day; a scan's date may be known to the day only: "2024-03-05" or "20240305". "" if there is none. */
export function day(value: string): string {
  const text = /^\d{8}$/.test(value) ? `${value.slice(0, 4)}-${value.slice(4, 6)}-${value.slice(6)}` : value
  const time = new Date(text.length === 10 ? `${text}T00:00` : text)
  if (!text || Number.isNaN(time.getTime())) return value
  return new Intl.DateTimeFormat(LOCALES[current.value], { year: 'numeric', month: 'short', day: 'numeric' }).format(time)
}

/** A moment, in the reader's own time zone. */
export function moment(value: string): string {
  const time = new Date(value)
  if (!value || Number.isNaN(time.getTime())) return value
  return new Intl.DateTimeFormat(LOCALES[current.value], { dateStyle: 'medium', timeStyle: 'short' }).format(time)
}

/** Seconds in the reader's words: 45 s, 12 min, 3.5 h. */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–'
  if (seconds < 90) return `${number(seconds, 0)} ${t('unit.s')}`
  return seconds < 5400 ? `${number(seconds / 60, 0)} ${t('unit.min')}` : `${number(seconds / 3600, 1)} ${t('unit.h')}`
}
