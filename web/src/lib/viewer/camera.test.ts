import { describe, expect, it } from 'vitest'
import { CENTRED, camera, toMm, toScreen, zoomedAt } from './camera'
import { planeAxes } from './reslice'

const geometry = { shape: [2, 100, 50], pixel_mm: [0.5, 2], positions_mm: [0, 5], thickness_mm: [5, 5] } as const
const axes = planeAxes({ ...geometry, shape: [2, 100, 50] }, 'axial')

describe('the camera', () => {
  it('fits an image of 100 x 50 mm into the view, in true proportions', () => {
    expect(camera(axes, 400, 400, CENTRED)).toEqual({ scale: 4, x: 0, y: 100 })
    expect(camera(axes, 1000, 100, CENTRED)).toEqual({ scale: 2, x: 400, y: 0 })
  })

  it('leads there and back', () => {
    const framed = camera(axes, 640, 480, { zoom: 3, pan: [4, -7] })
    const [x, y] = toScreen(framed, toMm(framed, [123, 45]))
    expect(x).toBeCloseTo(123, 9)
    expect(y).toBeCloseTo(45, 9)
  })

  it('keeps what is under the pointer there when it zooms, and stops at its bounds', () => {
    const before = { zoom: 1.5, pan: [3, 2] as const }
    const mm = toMm(camera(axes, 640, 480, before), [100, 300])
    const after = zoomedAt(axes, 640, 480, before, [100, 300], 2)
    expect(after.zoom).toBe(3)
    const [x, y] = toScreen(camera(axes, 640, 480, after), mm)
    expect(x).toBeCloseTo(100, 9)
    expect(y).toBeCloseTo(300, 9)
    expect(zoomedAt(axes, 640, 480, before, [0, 0], 1e9).zoom).toBe(40)
  })
})
