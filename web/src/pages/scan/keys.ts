// The keys of the Scan page, as the help lists them. Scan.svelte says what each does.

import type { TextKey } from '../../lib/i18n'
import type { Tool } from './look.svelte'

export interface Key {
  keys: string[]
  text: TextKey
}

export const TOOL_KEYS: readonly { tool: Tool; key: string; text: TextKey }[] = [
  { tool: 'look', key: 'V', text: 'scan.tool.look' },
  { tool: 'ruler', key: 'R', text: 'scan.tool.ruler' },
  { tool: 'angle', key: 'D', text: 'scan.tool.angle' },
  { tool: 'circle', key: 'O', text: 'scan.tool.circle' },
  { tool: 'brush', key: 'B', text: 'scan.tool.brush' },
  { tool: 'eraser', key: 'E', text: 'scan.tool.eraser' },
  { tool: 'fill', key: 'F', text: 'scan.tool.fill' },
  { tool: 'lasso', key: 'L', text: 'scan.tool.lasso' },
  { tool: 'grow', key: 'G', text: 'scan.tool.grow' },
  { tool: 'type', key: 'T', text: 'scan.tool.type' },
]

export const KEY_GROUPS: readonly { title: TextKey; keys: readonly Key[] }[] = [
  {
    title: 'scan.keys.slices',
    keys: [
      { keys: ['↑', '↓'], text: 'scan.key.step' },
      { keys: ['Page ↑', 'Page ↓'], text: 'scan.key.page' },
      { keys: ['Home', 'End'], text: 'scan.key.ends' },
      { keys: ['N', 'Shift N'], text: 'scan.key.lesion' },
      { keys: ['X', 'C', 'S'], text: 'scan.key.planes' },
    ],
  },
  {
    title: 'scan.keys.view',
    keys: [
      { keys: ['1', '–', '6'], text: 'scan.key.windows' },
      { keys: ['M'], text: 'scan.key.masks' },
      { keys: ['P'], text: 'scan.key.probability' },
      { keys: ['+', '-', '0'], text: 'scan.key.zoom' },
      { keys: ['Y'], text: 'scan.key.earlier' },
    ],
  },
  {
    title: 'scan.keys.pointer',
    keys: [
      { keys: ['◨'], text: 'scan.key.rightDrag' },
      { keys: ['Ctrl ⊙'], text: 'scan.key.ctrlWheel' },
      { keys: ['Space ◧'], text: 'scan.key.spaceDrag' },
      { keys: ['Alt ◧'], text: 'scan.key.altDrag' },
    ],
  },
  {
    title: 'scan.keys.reading',
    keys: [
      { keys: ['A'], text: 'scan.key.agree' },
      { keys: ['W'], text: 'scan.key.wrong' },
      { keys: ['U'], text: 'scan.key.unsure' },
      { keys: ['J'], text: 'scan.key.next' },
    ],
  },
  { title: 'scan.keys.tools', keys: TOOL_KEYS.map(({ key, text }) => ({ keys: [key], text })) },
  {
    title: 'scan.keys.drawing',
    keys: [
      { keys: ['Shift 1', '–', '6'], text: 'scan.key.type' },
      { keys: ['[', ']'], text: 'scan.key.size' },
      { keys: ['H'], text: 'scan.key.limit' },
      { keys: ['I'], text: 'scan.key.interpolate' },
      { keys: ['Ctrl Z'], text: 'scan.key.undo' },
      { keys: ['Ctrl Y'], text: 'scan.key.redo' },
      { keys: ['Ctrl S'], text: 'scan.key.save' },
      { keys: ['Shift ←→↑↓'], text: 'scan.key.cursor' },
      { keys: ['Enter'], text: 'scan.key.press' },
      { keys: ['Shift Enter'], text: 'scan.key.close' },
      { keys: ['Esc'], text: 'scan.key.cancel' },
    ],
  },
]
