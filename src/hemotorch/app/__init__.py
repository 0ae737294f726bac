"""`hemotorch serve`: scans, outlines, corrections and teaching in a browser on one's own machine. No torch.

database     the workspace's SQLite file: transactions, and the log of what changed
queue        jobs that survive whatever is killed: a table with leases
schemas      what the REST interface takes and gives
static/      the pages, built from `web/` when hemotorch is installed
"""
