// Slices arrive in the right order and place, undo takes back exactly what was done, masks survive the wire.

import { describe, expect, it } from 'vitest'
import { countCodes, gunzip, gzip } from './encode'
import { History, runsBetween } from './history'
import { SliceLoader, huVolume, maskVolume, nextRange, type FetchSlices } from './volume'

describe('what is fetched next', () => {
  it('is the slice looked at, then its neighbours, each slice once', () => {
    const wanted = new Uint8Array(10).fill(1)
    const ranges: [number, number][] = []
    for (let range = nextRange(wanted, 4, 3); range; range = nextRange(wanted, 4, 3)) {
      ranges.push(range)
      wanted.fill(0, range[0], range[1] + 1)
    }
    expect(ranges).toEqual([
      [4, 4],
      [5, 7],
      [1, 3],
      [8, 9],
      [0, 0],
    ])
  })
})

describe('a loader', () => {
  const source = Int16Array.from({ length: 6 * 4 }, (_, index) => index * 7 - 30)
  const bytes: FetchSlices = async (first, last) => source.slice(first * 4, (last + 1) * 4).buffer

  it('fills the volume and tells each slice', async () => {
    const volume = huVolume([6, 2, 2])
    const seen: number[] = []
    await new SliceLoader(volume, bytes, 3, (first, last) => {
      for (let slice = first; slice <= last; slice++) seen.push(slice)
    }).load()
    expect([...volume.data]).toEqual([...source])
    expect(volume.whole).toBe(true)
    expect(seen[0]).toBe(3)
    expect(seen.sort()).toEqual([0, 1, 2, 3, 4, 5])
  })

  it('tries again what failed once, and gives up at the third failure', async () => {
    const volume = huVolume([6, 2, 2])
    let failures = 0
    const flaky: FetchSlices = async (first, last, signal) => {
      if (failures++ === 0) throw new Error('cut off')
      return bytes(first, last, signal)
    }
    await new SliceLoader(volume, flaky, 0).load()
    expect([...volume.data]).toEqual([...source])
    const never: FetchSlices = () => Promise.reject(new Error('gone'))
    await expect(new SliceLoader(huVolume([6, 2, 2]), never, 0).load()).rejects.toThrow('gone')
  })

  it('refuses an answer of another length', async () => {
    const short: FetchSlices = () => Promise.resolve(new ArrayBuffer(2))
    await expect(new SliceLoader(huVolume([6, 2, 2]), short, 0).load()).rejects.toThrow('2 bytes came for 8')
  })

  it('stops when told to', async () => {
    const volume = huVolume([6, 2, 2])
    const asked: number[] = []
    const slow: FetchSlices = (first, _, signal) =>
      new Promise((_resolve, reject) => {
        asked.push(first)
        signal.addEventListener('abort', () => reject(new Error('aborted')))
      })
    const loader = new SliceLoader(volume, slow, 5)
    const loading = loader.load()
    loader.abort()
    await loading
    expect(asked.length).toBeLessThanOrEqual(2)
    expect(volume.here).not.toContain(1)
  })

  it('fetches only the slices that it is given', async () => {
    const volume = maskVolume([6, 1, 4])
    const asked: number[] = []
    const ones: FetchSlices = async (first, last) => {
      for (let slice = first; slice <= last; slice++) asked.push(slice)
      return new Uint8Array((last - first + 1) * 4).fill(1).buffer
    }
    await new SliceLoader(volume, ones, 0, undefined, [2, 5]).load()
    expect(asked.sort()).toEqual([2, 5])
    expect([...volume.data].filter(Boolean).length).toBe(8)
    expect(volume.whole).toBe(true)
  })
})

describe('undo', () => {
  it('takes back and does again a hundred random steps exactly', () => {
    const mask = maskVolume([4, 8, 8])
    const history = new History((slice) => mask.slice(slice))
    const states = [mask.data.slice()]
    let seed = 1
    const random = (below: number): number => (seed = (seed * 48271) % 2147483647) % below
    for (let step = 0; step < 100; step++) {
      for (let change = 0; change < 3; change++) {
        const slice = random(4)
        history.touch(slice)
        const start = random(60)
        mask.slice(slice).fill(random(7), start, start + 1 + random(9))
      }
      if (history.commit('stroke').length) states.push(mask.data.slice())
    }
    const last = states.length - 1
    expect(history.steps).toBe(last)
    for (let step = last - 1; step >= 0; step--) {
      history.undo()
      expect(mask.data).toEqual(states[step])
    }
    expect(history.canUndo).toBe(false)
    for (let step = 1; step <= last; step++) {
      history.redo()
      expect(mask.data).toEqual(states[step])
    }
    expect(history.canRedo).toBe(false)
  })

  it('forgets what was undone when something else is done, and makes no step of nothing', () => {
    const mask = maskVolume([1, 1, 4])
    const history = new History((slice) => mask.slice(slice))
    history.touch(0)
    expect(history.commit('nothing')).toEqual([])
    expect(history.canUndo).toBe(false)
    for (const code of [1, 2]) {
      history.touch(0)
      mask.data[0] = code
      expect(history.commit('stroke')).toEqual([0])
    }
    history.undo()
    history.touch(0)
    mask.data[1] = 5
    history.commit('stroke')
    expect(history.canRedo).toBe(false)
    expect([...mask.data]).toEqual([1, 5, 0, 0])
    history.touch(0)
    mask.data[2] = 3
    expect(history.cancel()).toEqual([0])
    expect([...mask.data]).toEqual([1, 5, 0, 0])
  })

  it('keeps runs, not pixels', () => {
    const before = new Uint8Array(1000)
    const after = before.slice().fill(4, 100, 900)
    expect([...runsBetween(before, after)]).toEqual([100, 800, 0, 4])
  })
})

describe('the wire', () => {
  it('brings back what was sent', async () => {
    const mask = Uint8Array.from({ length: 50000 }, (_, index) => (index % 997 < 40 ? index % 7 : 0))
    const packed = await gzip(mask)
    expect(packed.length).toBeLessThan(mask.length / 4)
    expect([...packed.subarray(0, 3)]).toEqual([0x1f, 0x8b, 8])
    expect(await gunzip(packed)).toEqual(mask)
  })

  it('counts codes', () => {
    expect([...countCodes(Uint8Array.of(0, 1, 1, 5, 6, 9))]).toEqual([0, 2, 0, 0, 0, 1, 2])
  })
})
