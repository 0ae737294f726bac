"""`hemotorch serve`: scans, outlines, corrections and teaching in a browser on one's own machine. No torch.

database     the workspace's SQLite file: transactions, and the log of what changed
identities   whose studies are: pseudonyms, and the words that no text may hold
layers       masks over a scan: truth, predictions, versions
library      the studies: a row and a folder each
queue        jobs that survive whatever is killed: a table with leases
refusals     errors that the interface answers with a status of their own
schemas      what the REST interface takes and gives
static/      the pages, built from `web/` when hemotorch is installed
stored_scan  a scan in the workspace: its HU mapped, its geometry as JSON
worklist     the studies searched, sorted and given in pages
"""
