// The viewer's arithmetic against what numpy and scipy say; web/fixtures.py makes the references.

import { describe, expect, it } from 'vitest'
import { fillEnclosed, fillPolygon, softLimits, stroke, type Slice } from './brush'
import brush from './fixtures/brush.json'
import colours from './fixtures/colours.json'
import fill from './fixtures/fill.json'
import growth from './fixtures/grow.json'
import interpolation from './fixtures/interpolate.json'
import lasso from './fixtures/lasso.json'
import measured from './fixtures/measure.json'
import outlines from './fixtures/outlines.json'
import resliced from './fixtures/reslice.json'
import windowing from './fixtures/windowing.json'
import { boxAround, grow, lesionAt } from './grow'
import { between, gapsAround, signedDistances } from './interpolate'
import { angle, circleStatistics, type Point } from './measure'
import { CODE_NAMES, CODE_RGB, TRUTH_RGB, UNTYPED, codesIn, edges, lines, paintFill } from './overlay'
import { planeAxes, resliceHu, resliceMask, voxelAt, type Plane } from './reslice'
import type { Shape } from './volume'
import { WINDOWS, draggedWindow, greyTable, paintGrey } from './windowing'

const shapeOf = (values: number[]): Shape => values as unknown as Shape

describe('windows', () => {
  it.each(windowing.cases)('$name is as to_grey has it', ({ hu, grey, ...window }) => {
    const pixels = new Uint32Array(hu.length)
    paintGrey(Int16Array.from(hu), greyTable(window), pixels)
    expect([...pixels].map((pixel) => pixel & 255)).toEqual(grey)
    for (const pixel of pixels) {
      expect(pixel >>> 24).toBe(255)
      expect((pixel >>> 8) & 255).toBe(pixel & 255)
      expect((pixel >>> 16) & 255).toBe(pixel & 255)
    }
    expect(WINDOWS.find(({ name }) => name === window.name)).toMatchObject({ level: window.level, width: window.width })
  })

  it('are widened to the right and darkened downward by a drag, within bounds', () => {
    expect(draggedWindow({ level: 40, width: 80 }, 20, 10)).toEqual({ level: 43, width: 85 })
    expect(draggedWindow({ level: 40, width: 8 }, -5000, 0).width).toBe(1)
  })
})

describe('planes', () => {
  const shape = shapeOf(resliced.shape)
  const hu = Int16Array.from(resliced.hu)
  const mask = Uint8Array.from(resliced.mask)
  it.each(resliced.cases)('$name', ({ plane, index, positions_mm, thickness_mm, height, ...expected }) => {
    const pixel_mm = resliced.pixel_mm as [number, number]
    const axes = planeAxes({ shape, pixel_mm, positions_mm, thickness_mm }, plane as Plane)
    expect(axes.height).toBe(height)
    const image = new Int16Array(axes.width * axes.height)
    resliceHu(hu, shape, axes, index, image)
    expect([...image]).toEqual(expected.hu)
    const codes = new Uint8Array(image.length)
    resliceMask(mask, shape, axes, index, codes)
    expect([...codes]).toEqual(expected.mask)
    for (let y = 0; y < axes.height; y++) {
      const voxel = voxelAt(axes, index, 2, y)
      if (!voxel) expect(codes[y * axes.width + 2]).toBe(0)
      else expect(codes[y * axes.width + 2]).toBe(mask[(voxel[0] * shape[1] + voxel[1]) * shape[2] + voxel[2]])
    }
  })
})

describe('overlays', () => {
  const { width, height } = outlines
  const mask = Uint8Array.from(outlines.mask)

  it('have the colours of hemotorch/labels.py', () => {
    expect(CODE_RGB).toEqual(colours.rgb)
    expect(TRUTH_RGB).toEqual(colours.truth)
    expect(CODE_NAMES).toEqual(colours.names)
    expect(UNTYPED).toBe(colours.untyped)
  })

  it.each(Object.entries(outlines.perimeters))('edges of code %s', (code, perimeter) => {
    const segments = edges(mask, width, height, Number(code))
    let length = 0
    for (let index = 0; index < segments.length; index += 4) {
      const [x0, y0, x1, y1] = segments.slice(index, index + 4) as unknown as [number, number, number, number]
      length += x1 - x0 + (y1 - y0)
    }
    expect(length).toBe(perimeter)
    expect(new Set(edgesOf(segments)).size).toBe(perimeter)
    let joined = 0
    for (const line of lines(segments)) {
      expect(line.slice(0, 2)).toEqual(line.slice(-2)) // an area's outline is closed
      for (let at = 2; at < line.length; at += 2) {
        joined += Math.abs(line[at]! - line[at - 2]!) + Math.abs(line[at + 1]! - line[at - 1]!)
      }
    }
    expect(joined).toBe(perimeter)
  })

  it('fill in the code’s colour and nowhere else', () => {
    const pixels = new Uint32Array(mask.length)
    paintFill(mask, pixels)
    mask.forEach((code, index) => {
      const [red, green, blue] = CODE_RGB[code]!
      const expected = code ? ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0 : 0
      expect(pixels[index]).toBe(expected)
    })
    expect(codesIn(mask)).toEqual([1, 3, 6])
  })
})

/** Edges one pixel long, as text, each of which two different pixels share. */
function edgesOf(segments: Int32Array): string[] {
  const names: string[] = []
  for (let index = 0; index < segments.length; index += 4) {
    const [x0, y0, x1, y1] = [...segments.slice(index, index + 4)] as [number, number, number, number]
    for (let x = x0; x < x1; x++) names.push(`h${x},${y0}`)
    for (let y = y0; y < y1; y++) names.push(`v${x0},${y}`)
  }
  return names
}

describe('drawing', () => {
  const { width, height, x_mm, y_mm } = brush
  const fresh = (start: number[]): Slice => ({
    mask: Uint8Array.from(start),
    hu: Int16Array.from(brush.hu),
    width,
    height,
  })

  it.each(brush.cases)('stroke of code $code, limits $limits, over $only', (given) => {
    const slice = fresh(brush.start)
    const limits = given.limits as [number, number] | null
    const ends = [given.from as [number, number], given.to as [number, number]] as const
    const changed = stroke(slice, ...ends, given.radius, x_mm, y_mm, given.code, limits, given.only)
    expect([...slice.mask]).toEqual(given.mask)
    expect(changed).toBe(given.changed)
  })

  it.each(lasso.cases)('lasso $points', ({ points, mask }) => {
    const slice = fresh(new Array<number>(width * height).fill(0))
    const changed = fillPolygon(slice, points, 1)
    expect([...slice.mask]).toEqual(mask)
    expect(changed).toBe(mask.filter(Boolean).length)
  })

  it('fills a hole, recolours a lesion, and leaves what is open', () => {
    const slice = fresh(fill.start)
    expect(fillEnclosed(slice, 14, 11, 5)).toBe(fill.pixels[0])
    expect([...slice.mask]).toEqual(fill.hole)
    const other = fresh(fill.start)
    expect(fillEnclosed(other, 5, 6, 2)).toBe(fill.pixels[1])
    expect([...other.mask]).toEqual(fill.recoded)
    expect(fillEnclosed(other, 20, 5, 2)).toBe(-1)
    expect([...other.mask]).toEqual(fill.recoded)
  })

  it('never limits HU to bone or air', () => {
    expect(softLimits(-2000, 3000)).toEqual([-100, 200])
    expect(softLimits(90, 20)).toEqual([20, 90])
    expect(softLimits(800, 900)).toEqual([200, 200])
  })
})

describe('growing', () => {
  const shape = shapeOf(growth.shape)
  const step_mm = growth.step_mm as [number, number, number]
  const hu = Int16Array.from(growth.hu)

  it.each(growth.cases)('from $seed, HU $low to $high', ({ seed, low, high, radius_mm, mask }) => {
    const around = boxAround(hu, shape, seed as [number, number, number], step_mm, radius_mm)
    const grown = grow({ ...around, low, high, step_mm, radius_mm })
    const whole = new Uint8Array(hu.length)
    const { origin, shape: size } = around.box
    for (let index = 0; index < grown.length; index++) {
      const [z, rest] = [Math.floor(index / (size[1] * size[2])), index % (size[1] * size[2])]
      const [y, x] = [Math.floor(rest / size[2]), rest % size[2]]
      whole[((z + origin[0]) * shape[1] + y + origin[1]) * shape[2] + x + origin[2]] = grown[index]!
    }
    expect([...whole]).toEqual(mask)
  })

  it('finds the lesion under a click, of any code and of one', () => {
    const mask = Uint8Array.from(growth.lesion.mask)
    expect([...lesionAt(mask, shape, growth.lesion.start, false)]).toEqual(growth.lesion.any)
    expect([...lesionAt(mask, shape, growth.lesion.start, true)]).toEqual(growth.lesion.same)
    expect(lesionAt(mask, shape, mask.indexOf(0), false).length).toBe(0)
  })
})

describe('interpolation', () => {
  const { width, height, x_mm, y_mm } = interpolation
  const [a, b] = [Uint8Array.from(interpolation.a), Uint8Array.from(interpolation.b)]

  it('measures the distances that scipy measures', () => {
    const signed = signedDistances(a, width, height, x_mm, y_mm)
    signed.forEach((value, index) => expect(value).toBeCloseTo(interpolation.signed[index]!, 8))
  })

  it.each(interpolation.cases)('at $share of the way', ({ share, mask }) => {
    expect([...between(a, b, share, width, height, x_mm, y_mm)]).toEqual(mask)
  })

  it('fills the gaps that hold or touch the slice', () => {
    const drawn = [false, true, false, false, true, true, false, true]
    expect(gapsAround(drawn, 2)).toEqual([[1, 4]])
    expect(gapsAround(drawn, 4)).toEqual([[1, 4]])
    expect(gapsAround(drawn, 5)).toEqual([[5, 7]])
    expect(gapsAround(drawn, 0)).toEqual([])
  })
})

describe('measuring', () => {
  const { width, height, x_mm, y_mm } = measured
  const hu = Int16Array.from(measured.hu)

  it.each(measured.circles)('circle at $middle', ({ middle, edge, pixels, mean, sd }) => {
    const found = circleStatistics(hu, width, height, x_mm, y_mm, middle as unknown as Point, edge as unknown as Point)
    expect(found.pixels).toBe(pixels)
    if (mean === null) expect(found.mean).toBeNaN()
    else {
      expect(found.mean).toBeCloseTo(mean, 8)
      expect(found.sd).toBeCloseTo(sd!, 8)
    }
  })

  it.each(measured.angles)('angle $degrees', ({ points, degrees }) => {
    const [a, middle, b] = points as unknown as [Point, Point, Point]
    expect(angle(a, middle, b)).toBeCloseTo(degrees, 5)
  })
})
