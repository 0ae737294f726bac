"""`hemotorch serve`: scans, outlines, corrections and teaching in a browser on one's own machine. No torch.

api/         the routes of the REST interface
audit        who did what to which study
client       a Python client of the REST interface
comparing    two layers of a study: Dice and mL
database     the workspace's SQLite file: transactions, and the log of what changed
datasets     corrected studies as datasets
events       what changed, as server-sent events
identities   whose studies are: pseudonyms, and the words that no text may hold
jobs/        what jobs do, one module for each kind
layers       masks over a scan: truth, predictions, versions
library      the studies: a row and a folder each
measuring    rulers, angles and circles
models       the models of a workspace, and which one is current
queue        jobs that survive whatever is killed: a table with leases
refusals     errors that the interface answers with a status of their own
run          the server's start: port, link, browser
schemas      what the REST interface takes and gives
security     what each request must pass: Host, token, Origin; and the headers of all answers
server       the application: routes, pages, sign-in
sessions     who is signed in
settings     what the server was started with; its folder and tokens
static/      the pages, built from `web/` when hemotorch is installed
stored_scan  a scan in the workspace: its HU mapped, its geometry as JSON
study_files  what can be downloaded of a study
supervisor   the worker processes: started, watched, ended
teach        trainings: who is taught with, who is held out, what came of it
uploads      files that are uploaded, streamed and resumed
versions     drafts, and the versions that are made of them
watch        folders whose new scans are imported
worker       a process that does one job
worklist     the studies searched, sorted and given in pages
workspace    the folder and what keeps it
"""
