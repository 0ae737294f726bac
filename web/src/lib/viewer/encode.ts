// A mask as it goes over the wire: its bytes, gzipped by the browser.

export async function gzip(mask: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([mask as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new CompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

export async function gunzip(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))
  return new Uint8Array(await new Response(stream).arrayBuffer())
}

/** How many pixels of each code a slice has: (7,) by code, codes above 6 counted as of unknown type. */
export function countCodes(mask: Uint8Array): Uint32Array {
  const counts = new Uint32Array(7)
  for (let index = 0; index < mask.length; index++) {
    const code = mask[index]!
    if (code) counts[Math.min(code, 6)]!++
  }
  return counts
}
