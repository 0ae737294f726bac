// Icons of 24 x 24, drawn as lines.

import type { Tool } from './look.svelte'

export const ICONS: Record<Tool | 'undo' | 'redo' | 'interpolate', string> = {
  look: 'M6 3l12 9-6 1-2 7z',
  ruler: 'M3 16L16 3l5 5L8 21zM7 12l2 2M10 9l2 2M13 6l2 2',
  angle: 'M20 20H4L16 5M11 20a8 8 0 0 0-3-6',
  circle: 'M12 4a8 8 0 1 0 .01 0M12 12l5.500-5.500',
  brush: 'M20 4L11 13M11 13c-3 0-4 2-4 4 0 1-1 3-3 3 5 1 10 0 10-4 0-2-1-3-3-3',
  eraser: 'M9 20h11M4 15L14 5l6 6-8 9H8zM9 10l6 6',
  fill: 'M5 12l7-7 7 7-7 7zM5 12h14M20 16c1 2 2 3 0 4-2-1-1-2 0-4',
  lasso: 'M12 4c5 0 9 2.500 9 6s-4 6-9 6-9-2.500-9-6 4-6 9-6M7 15c-2 1-2 4 1 5',
  grow: 'M12 9a3 3 0 1 0 .01 0M12 2v3M12 19v3M2 12h3M19 12h3M5 5l2 2M17 17l2 2M19 5l-2 2M7 17l-2 2',
  type: 'M4 12V4h8l8 8-8 8zM8 8h.01',
  undo: 'M9 6L4 11l5 5M4 11h10a5 5 0 0 1 0 10h-3',
  redo: 'M15 6l5 5-5 5M20 11H10a5 5 0 0 0 0 10h3',
  interpolate: 'M5 4h14M5 20h14M8 9.500h8M7 14.500h10',
}
