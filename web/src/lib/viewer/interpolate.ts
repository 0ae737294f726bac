// Slices between drawn ones, from the signed distances to their outlines (Raya and Udupa 1990, IEEE TMI 9(1):32).

const FAR = 1e20

/**
 * Squared mm from each pixel's middle to the nearest pixel that is 1; exact (Felzenszwalb and Huttenlocher 2012).
 *
 * set: height x width of 0 and 1.
 */
export function squaredDistances(set: Uint8Array, width: number, height: number, xMm: number, yMm: number): Float64Array {
  const distances = new Float64Array(set.length)
  for (let index = 0; index < set.length; index++) distances[index] = set[index] ? 0 : FAR
  const column = new Float64Array(height)
  for (let x = 0; x < width; x++) {
    for (let y = 0; y < height; y++) column[y] = distances[y * width + x]!
    const lower = lowerEnvelope(column, yMm)
    for (let y = 0; y < height; y++) distances[y * width + x] = lower[y]!
  }
  for (let y = 0; y < height; y++) {
    const row = distances.subarray(y * width, (y + 1) * width)
    row.set(lowerEnvelope(row, xMm))
  }
  return distances
}

/** For each place the least of values[q] + (step * (place - q))^2. */
function lowerEnvelope(values: Float64Array, step: number): Float64Array {
  const count = values.length
  const result = new Float64Array(count)
  const roots = new Int32Array(count)
  const bounds = new Float64Array(count + 1)
  let last = 0
  bounds[0] = -Infinity
  bounds[1] = Infinity
  const meeting = (q: number, p: number): number => {
    const [a, b] = [values[q]! / (step * step) + q * q, values[p]! / (step * step) + p * p]
    return (a - b) / (2 * (q - p))
  }
  for (let q = 1; q < count; q++) {
    let at = meeting(q, roots[last]!)
    while (last > 0 && at <= bounds[last]!) {
      last--
      at = meeting(q, roots[last]!)
    }
    last++
    roots[last] = q
    bounds[last] = at
    bounds[last + 1] = Infinity
  }
  let root = 0
  for (let place = 0; place < count; place++) {
    while (bounds[root + 1]! < place) root++
    const away = (place - roots[root]!) * step
    result[place] = values[roots[root]!]! + away * away
  }
  return result
}

/** mm to the outline, positive inside: to the nearest pixel outside; negative outside: to the nearest inside. */
export function signedDistances(set: Uint8Array, width: number, height: number, xMm: number, yMm: number): Float64Array {
  const outside = set.map((value) => (value ? 0 : 1))
  const toInside = squaredDistances(set, width, height, xMm, yMm)
  const toOutside = squaredDistances(outside, width, height, xMm, yMm)
  return toInside.map((value, index) => Math.sqrt(toOutside[index]!) - Math.sqrt(value))
}

/** The area at a share of the way from a to b: all pixels whose mixed signed distance is above 0. */
export function between(
  a: Uint8Array,
  b: Uint8Array,
  share: number,
  width: number,
  height: number,
  xMm: number,
  yMm: number,
): Uint8Array {
  const first = signedDistances(a, width, height, xMm, yMm)
  const second = signedDistances(b, width, height, xMm, yMm)
  return a.map((_, index) => ((1 - share) * first[index]! + share * second[index]! > 0 ? 1 : 0))
}

/** The gaps to fill around a slice: pairs of drawn slices with undrawn ones between, that hold or touch `current`. */
export function gapsAround(isDrawn: readonly boolean[], current: number): [number, number][] {
  const gaps: [number, number][] = []
  let before = -1
  for (let index = 0; index < isDrawn.length; index++) {
    if (!isDrawn[index]) continue
    if (before >= 0 && index - before > 1 && before <= current && current <= index) gaps.push([before, index])
    before = index
  }
  return gaps
}
