/** All words of the pages, English and Ukrainian side by side; a file for each page in texts/. */
import { frame } from './texts/frame'
import { help } from './texts/help'
import { jobs } from './texts/jobs'
import { scan } from './texts/scan'
import { teach } from './texts/teach'
import { worklist } from './texts/worklist'

export const texts = { ...frame, ...worklist, ...jobs, ...teach, ...help, ...scan }
export type TextKey = keyof typeof texts
