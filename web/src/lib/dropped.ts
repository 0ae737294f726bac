/** What a reader dropped or chose, as files with paths: folders are walked through, links are not there in a browser. */

/** A file to upload. path: below the batch, with "/" between folders. */
export interface PathFile {
  path: string
  file: globalThis.File
}

/** Names that no scan has: what machines leave in folders. */
const LITTER = /(^|\/)(\.DS_Store|Thumbs\.db|desktop\.ini|__MACOSX(\/.*)?|\._[^/]*)$/i

/** Files of an `<input type=file>`, of a folder with their paths in it. */
export function fromInput(files: Iterable<globalThis.File>): PathFile[] {
  return [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file })).filter(isWanted)
}

/** Files and whole folders that were dropped. */
export async function fromDrop(transfer: DataTransfer): Promise<PathFile[]> {
  // Entries must be taken before the first await: after it the list is empty.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter((entry) => entry !== null)
  // What another page made has no entries.
  const found: PathFile[] = entries.length ? [] : fromInput(transfer.files)
  for (const entry of entries) await walk(entry, found)
  return found.filter(isWanted)
}

async function walk(entry: FileSystemEntry, found: PathFile[]): Promise<void> {
  if (entry.isFile) {
    const file = await new Promise<globalThis.File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed))
    found.push({ path: entry.fullPath.replace(/^\//, ''), file })
    return
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader()
  // A reader gives at most 100 entries at once, and none at the end.
  for (;;) {
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed))
    if (!some.length) return
    for (const one of some) await walk(one, found)
  }
}

function isWanted({ path }: PathFile): boolean {
  return !LITTER.test(path)
}

/** What a batch is called: the folder that all files share, the only file, or the first of several. */
export function titleOf(files: PathFile[]): string {
  const first = files[0]
  if (!first) return ''
  const top = first.path.split('/')[0] ?? ''
  const shared = first.path.includes('/') && files.every(({ path }) => path.startsWith(`${top}/`))
  return shared ? top : first.path
}
