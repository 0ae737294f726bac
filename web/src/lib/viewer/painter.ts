// Paints one plane of a scan with its layers onto a canvas. No WebGL: `putImageData`, `drawImage` and lines.

import { toScreen, type Camera } from './camera'
import {
  CODE_RGB,
  TRUTH_RGB,
  UNTYPED,
  codesIn,
  css,
  edges,
  lines,
  paintFill,
  paintProbability,
} from './overlay'
import { resliceHu, resliceMask, type PlaneAxes } from './reslice'
import type { Volume } from './volume'
import { greyTable, paintGrey, type Window } from './windowing'

export type MaskStyle = 'outline' | 'fill' | 'both'

/** A mask to paint. key: changes whenever its voxels do. dashed: to tell it from another one. */
export interface PaintedLayer {
  id: string
  key: string
  mask: Volume<Uint8Array>
  isTruth: boolean
  dashed: boolean
}

interface PaintedMask {
  key: string
  codes: Uint8Array
  present: number[]
  lines: Map<number, number[][]>
  fill: Picture | null
  isFilled: boolean
}

/** An image of width x height pixels that can be written and drawn. */
class Picture {
  readonly canvas: HTMLCanvasElement
  readonly pixels: Uint32Array
  private readonly data: ImageData
  private readonly context: CanvasRenderingContext2D

  constructor(width: number, height: number) {
    this.canvas = document.createElement('canvas')
    this.canvas.width = width
    this.canvas.height = height
    this.context = this.canvas.getContext('2d')!
    this.data = new ImageData(width, height)
    this.pixels = new Uint32Array(this.data.data.buffer)
  }

  update(): void {
    this.context.putImageData(this.data, 0, 0)
  }
}

const DASH = 7

export class Painter {
  /** HU of the image that was painted last, width x height. */
  hu: Int16Array = new Int16Array(0)
  private grey: Picture | null = null
  private greyKey = ''
  private huKey = ''
  private table: Uint32Array = new Uint32Array(0)
  private tableKey = ''
  private heat: Picture | null = null
  private heatKey = ''
  private readonly masks = new Map<string, PaintedMask>()

  /** The HU of a plane's image. key: changes whenever its voxels do. */
  readHu(volume: Volume<Int16Array>, axes: PlaneAxes, index: number, key: string): Int16Array {
    const name = `${axes.plane} ${index} ${key}`
    if (this.huKey === name) return this.hu
    if (axes.plane === 'axial') this.hu = volume.slice(index)
    else {
      if (this.huKey.split(' ')[0] !== axes.plane) this.hu = new Int16Array(axes.width * axes.height)
      resliceHu(volume.data, volume.shape, axes, index, this.hu)
    }
    this.huKey = name
    return this.hu
  }

  paintScan(
    context: CanvasRenderingContext2D,
    view: Camera,
    volume: Volume<Int16Array>,
    axes: PlaneAxes,
    index: number,
    window: Window,
    key: string,
  ): void {
    const hu = this.readHu(volume, axes, index, key)
    const tableKey = `${window.level} ${window.width}`
    if (this.tableKey !== tableKey) this.table = greyTable(window)
    this.tableKey = tableKey
    const greyKey = `${this.huKey} ${tableKey}`
    this.grey = fitting(this.grey, axes)
    if (this.greyKey !== greyKey) {
      paintGrey(hu, this.table, this.grey.pixels)
      this.grey.update()
    }
    this.greyKey = greyKey
    draw(context, this.grey, view, axes, true)
  }

  paintProbability(
    context: CanvasRenderingContext2D,
    view: Camera,
    probability: Volume<Uint8Array>,
    axes: PlaneAxes,
    index: number,
    key: string,
  ): void {
    const name = `${axes.plane} ${index} ${key}`
    this.heat = fitting(this.heat, axes)
    if (this.heatKey !== name) {
      paintProbability(codesOf(probability, axes, index), this.heat.pixels)
      this.heat.update()
    }
    this.heatKey = name
    draw(context, this.heat, view, axes, true)
  }

  paintLayer(
    context: CanvasRenderingContext2D,
    view: Camera,
    layer: PaintedLayer,
    axes: PlaneAxes,
    index: number,
    style: MaskStyle,
    opacity: number,
    pixelRatio: number,
  ): void {
    const painted = this.readMask(layer, axes, index)
    if (!painted.present.length) return
    if (style !== 'outline') {
      if (!painted.fill || !painted.isFilled) {
        painted.fill = fitting(painted.fill, axes)
        painted.isFilled = true
        paintFill(painted.codes, painted.fill.pixels, layer.isTruth ? TRUTH_COLOURS : CODE_RGB)
        painted.fill.update()
      }
      context.globalAlpha = opacity
      draw(context, painted.fill, view, axes, false)
      context.globalAlpha = 1
    }
    if (style === 'fill') return
    context.lineWidth = 1.5 * pixelRatio
    context.lineJoin = 'round'
    for (const code of painted.present) {
      const typed = code !== UNTYPED
      const colour = CODE_RGB[Math.min(code, UNTYPED)]!
      trace(context, this.linesOf(painted, axes, code), view, axes)
      context.setLineDash(layer.dashed ? [DASH * pixelRatio, 4 * pixelRatio] : [])
      context.strokeStyle = css(layer.isTruth && !typed ? TRUTH_RGB : colour)
      context.stroke()
      if (layer.isTruth && typed) {
        context.setLineDash([DASH * pixelRatio, DASH * pixelRatio])
        context.strokeStyle = css(TRUTH_RGB)
        context.stroke()
      }
    }
    context.setLineDash([])
  }

  /** Drops what is kept of layers that are no longer there. */
  keepOnly(ids: readonly string[]): void {
    for (const id of this.masks.keys()) if (!ids.includes(id)) this.masks.delete(id)
  }

  private readMask(layer: PaintedLayer, axes: PlaneAxes, index: number): PaintedMask {
    const key = `${axes.plane} ${index} ${layer.key}`
    const known = this.masks.get(layer.id)
    if (known?.key === key) return known
    const codes = codesOf(layer.mask, axes, index)
    const fill = known?.fill ?? null
    const painted = { key, codes, present: codesIn(codes), lines: new Map<number, number[][]>(), fill, isFilled: false }
    this.masks.set(layer.id, painted)
    return painted
  }

  private linesOf(painted: PaintedMask, axes: PlaneAxes, code: number): number[][] {
    let found = painted.lines.get(code)
    if (!found) {
      found = lines(edges(painted.codes, axes.width, axes.height, code))
      painted.lines.set(code, found)
    }
    return found
  }
}

const TRUTH_COLOURS = CODE_RGB.map((rgb, code) => (code === UNTYPED ? TRUTH_RGB : rgb))

/** Codes of a plane's image; of an axial one the slice itself. */
export function codesOf(mask: Volume<Uint8Array>, axes: PlaneAxes, index: number): Uint8Array {
  if (axes.plane === 'axial') return mask.slice(index)
  const codes = new Uint8Array(axes.width * axes.height)
  resliceMask(mask.data, mask.shape, axes, index, codes)
  return codes
}

function fitting(picture: Picture | null, axes: PlaneAxes): Picture {
  const fits = picture?.canvas.width === axes.width && picture.canvas.height === axes.height
  return fits ? picture! : new Picture(axes.width, axes.height)
}

function draw(
  context: CanvasRenderingContext2D,
  picture: Picture,
  view: Camera,
  axes: PlaneAxes,
  smooth: boolean,
): void {
  context.imageSmoothingEnabled = smooth
  const [width, height] = [axes.width * axes.x_mm * view.scale, axes.height * axes.y_mm * view.scale]
  context.drawImage(picture.canvas, view.x, view.y, width, height)
}

function trace(context: CanvasRenderingContext2D, found: number[][], view: Camera, axes: PlaneAxes): void {
  context.beginPath()
  for (const line of found) {
    for (let at = 0; at < line.length; at += 2) {
      const [x, y] = toScreen(view, [line[at]! * axes.x_mm, line[at + 1]! * axes.y_mm])
      if (at === 0) context.moveTo(x, y)
      else context.lineTo(x, y)
    }
  }
}
