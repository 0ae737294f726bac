import { describe, expect, it } from 'vitest'
import { fill, number, setLanguage, t, type Forms, type Text } from './i18n'
import { texts } from './texts'

const entries = Object.entries(texts) as [string, Text][]
const RULES = { en: new Intl.PluralRules('en-GB'), uk: new Intl.PluralRules('uk-UA') }

const NAMES = new Set(['ABC/2', 'Dice', '+{n}'])
const sentences = (forms: Forms) => (typeof forms === 'string' ? [forms] : Object.values(forms))
const places = (sentence: string) => [...sentence.matchAll(/\{(\w+)\}/g)].map((found) => found[1]).sort()

describe('texts', () => {
  it.each(entries)('%s is there in both languages', (_key, text) => {
    for (const forms of text) for (const sentence of sentences(forms)) expect(sentence.trim()).not.toBe('')
  })

  it.each(entries)('%s has the same values in both languages and in every plural form', (_key, text) => {
    const wanted = new Set(text.flatMap(sentences).flatMap(places))
    for (const forms of text) expect(new Set(sentences(forms).flatMap(places))).toEqual(wanted)
  })

  it.each(entries)('%s has every plural form that its language tells apart', (_key, text) => {
    for (const [index, name] of (['en', 'uk'] as const).entries()) {
      const forms = text[index]
      if (typeof forms === 'string') continue
      expect(Object.keys(forms ?? {}).sort()).toEqual([...RULES[name].resolvedOptions().pluralCategories].sort())
    }
  })

  it('has Ukrainian letters in the Ukrainian texts, apart from names that are the same everywhere', () => {
    const latin = entries.filter(([, text]) => sentences(text[1]).some((line) => !/[а-яіїєґ]/i.test(line)))
    expect(latin.filter(([, text]) => text[0] !== text[1] || !NAMES.has(String(text[0]))).map(([key]) => key)).toEqual([])
  })
})

describe('t', () => {
  it('chooses the plural form', () => {
    setLanguage('uk')
    const said = [1, 2, 5, 11, 21, 1.5].map((n) => t('worklist.count', { n }))
    expect(said).toEqual([
      '1 дослідження', '2 дослідження', '5 досліджень', '11 досліджень', '21 дослідження', '1,5 дослідження',
    ])
    setLanguage('en')
    expect([1, 2, 1200].map((n) => t('worklist.count', { n }))).toEqual(['1 study', '2 studies', '1,200 studies'])
  })

  it('leaves a value that was not given visible', () => {
    expect(fill(['{a} of {b}', '{a} з {b}'], 'en', { a: 'one' })).toBe('one of {b}')
  })

  it('writes an unknown number as a dash, never as 0', () => {
    expect(number(null, 1)).toBe('–')
    expect(number(0, 1)).toBe('0.0')
  })
})
