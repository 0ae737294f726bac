"""`hemotorch serve`: scans, outlines, corrections and teaching in a browser on one's own machine. No torch.

schemas      what the REST interface takes and gives
static/      the pages, built from `web/` when hemotorch is installed
"""
