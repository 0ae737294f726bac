// Grows beside the page, so that it does not stand still.

import { grow, type GrowRequest } from './grow'

self.onmessage = (event: MessageEvent<GrowRequest>): void => {
  const grown = grow(event.data)
  self.postMessage(grown, { transfer: [grown.buffer] })
}
