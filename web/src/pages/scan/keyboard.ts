// What each key does; keys.ts lists them for the help.

import { CENTRED, zoomedAt } from '../../lib/viewer/camera'
import { PLANES, type Plane } from '../../lib/viewer/reslice'
import { WINDOWS } from '../../lib/viewer/windowing'
import { TOOL_KEYS } from './keys'
import type { ScanPage } from './scan-page.svelte'

export interface Actions {
  showKeys: () => void
  save: () => void
  /** Reads HU at the keyboard's cursor. */
  read: () => void
}

const PAGE = 5
const BY_CTRL = 10
const ARROWS: Record<string, readonly [number, number]> = {
  ArrowLeft: [-1, 0],
  ArrowRight: [1, 0],
  ArrowUp: [0, -1],
  ArrowDown: [0, 1],
}
const PLANE_KEYS: Record<string, Plane> = { KeyX: 'axial', KeyC: 'coronal', KeyS: 'sagittal' }

/** Whether the key belongs to a field that takes it itself. */
function isTyping(event: KeyboardEvent): boolean {
  const { target } = event
  if (!(target instanceof HTMLElement)) return false
  if (target.isContentEditable || target.closest('dialog')) return true
  if (target instanceof HTMLTextAreaElement || target instanceof HTMLSelectElement) return true
  if (target instanceof HTMLInputElement && target.type !== 'checkbox') {
    return target.type !== 'range' || event.key.startsWith('Arrow') || event.key === 'Home' || event.key === 'End'
  }
  const presses = event.key === 'Enter' || event.key === ' '
  return presses && target.closest('button, a, summary, label') !== null
}

/** Keys are read by their place on the keyboard, so that they work with Cyrillic letters too. */
export function keyPressed(event: KeyboardEvent, page: ScanPage, actions: Actions): void {
  if (event.defaultPrevented || !page.view) return
  const isCommand = event.ctrlKey || event.metaKey
  if (isTyping(event) && !(isCommand && event.code === 'KeyS')) return
  const isHandled = isCommand ? command(event, page, actions) : move(event, page, actions) || letter(event, page, actions)
  if (isHandled) event.preventDefault()
}

function command(event: KeyboardEvent, page: ScanPage, actions: Actions): boolean {
  const { correction } = page
  if (event.shiftKey && event.code in ARROWS) return moveCursor(event, page, actions)
  if (event.code === 'KeyS') {
    actions.save()
    return true
  }
  if (event.code === 'KeyZ' && event.shiftKey) correction?.redo()
  else if (event.code === 'KeyZ') correction?.undo()
  else if (event.code === 'KeyY') correction?.redo()
  else return false
  return true
}

function move(event: KeyboardEvent, page: ScanPage, actions: Actions): boolean {
  if (event.shiftKey && event.code in ARROWS) return moveCursor(event, page, actions)
  const { look, count } = page
  const up = look.plane === 'axial' ? 1 : -1
  switch (event.key) {
    case 'ArrowUp':
    case 'ArrowRight':
      look.step(up, count)
      break
    case 'ArrowDown':
    case 'ArrowLeft':
      look.step(-up, count)
      break
    case 'PageUp':
      look.step(PAGE * up, count)
      break
    case 'PageDown':
      look.step(-PAGE * up, count)
      break
    case 'Home':
      page.jump(up > 0 ? count - 1 : 0)
      break
    case 'End':
      page.jump(up > 0 ? 0 : count - 1)
      break
    case 'Enter':
      return pressAtCursor(event, page)
    case 'Escape':
      escape(page)
      break
    default:
      return false
  }
  return true
}

function moveCursor(event: KeyboardEvent, page: ScanPage, actions: Actions): boolean {
  const { look, view, hand } = page
  const axes = view!.planeAxes(look.plane)
  const by = event.ctrlKey || event.metaKey ? BY_CTRL : 1
  const [dx, dy] = ARROWS[event.code]!
  const [x, y] = look.cursor ?? [Math.floor(axes.width / 2), Math.floor(axes.height / 2)]
  const clip = (value: number, size: number): number => Math.min(size - 1, Math.max(0, value))
  look.cursor = [clip(x + dx * by, axes.width), clip(y + dy * by, axes.height)]
  hand?.move([look.cursor[0] + 0.5, look.cursor[1] + 0.5])
  actions.read()
  return true
}

function pressAtCursor(event: KeyboardEvent, page: ScanPage): boolean {
  const { look, hand } = page
  if (!look.cursor || !hand) return false
  if (event.shiftKey) {
    hand.close()
    return true
  }
  hand.press([look.cursor[0] + 0.5, look.cursor[1] + 0.5], event.altKey)
  hand.release(true)
  return true
}

function escape(page: ScanPage): void {
  if (page.hand?.isBusy) page.hand.cancel()
  else if (page.look.tool !== 'look') void page.pick('look')
  else page.look.cursor = null
  page.said = ''
}

function letter(event: KeyboardEvent, page: ScanPage, actions: Actions): boolean {
  const { look, correction, view } = page
  if (event.altKey) return false
  if (event.key === '?') {
    actions.showKeys()
    return true
  }
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code)?.[1]
  if (digit !== undefined) return number(Number(digit), event.shiftKey, page)
  const tool = TOOL_KEYS.find(({ key }) => event.code === `Key${key}`)
  if (tool && !event.shiftKey) {
    void page.pick(tool.tool)
    return true
  }
  const plane = PLANE_KEYS[event.code]
  if (plane && PLANES.includes(plane)) {
    if (plane === 'axial' || view!.study.geometry.spacing_known) look.plane = plane
    return true
  }
  switch (event.code) {
    case 'KeyN':
      page.nextLesion(event.shiftKey ? -1 : 1)
      break
    case 'KeyM':
      look.showMasks = !look.showMasks
      break
    case 'KeyP':
      look.showProbability = !look.showProbability
      break
    case 'KeyY':
      page.toggleEarlier()
      break
    case 'KeyA':
      void page.read('agreed')
      break
    case 'KeyW':
      void page.read('wrong')
      break
    case 'KeyU':
      void page.read('unsure')
      break
    case 'KeyJ':
      void page.next()
      break
    case 'KeyI':
      if (correction) page.interpolate()
      break
    case 'KeyH':
      if (correction) correction.isLimited = !correction.isLimited
      break
    case 'BracketLeft':
      if (correction) correction.radiusMm = Math.max(0.5, correction.radiusMm - 0.5)
      break
    case 'BracketRight':
      if (correction) correction.radiusMm = Math.min(20, correction.radiusMm + 0.5)
      break
    case 'Equal':
    case 'NumpadAdd':
      zoom(page, 1.25)
      break
    case 'Minus':
    case 'NumpadSubtract':
      zoom(page, 0.8)
      break
    default:
      return false
  }
  return true
}

function number(digit: number, isShifted: boolean, page: ScanPage): boolean {
  if (digit === 0 && !isShifted) page.look.framing = CENTRED
  else if (isShifted) page.setCode(digit)
  else if (WINDOWS[digit - 1]) page.look.window = WINDOWS[digit - 1]!
  else return false
  return true
}

function zoom({ look, view }: ScanPage, factor: number): void {
  const axes = view!.planeAxes(look.plane)
  look.framing = zoomedAt(axes, 2, 2, look.framing, [1, 1], factor)
}
