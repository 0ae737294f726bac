"""Pictures of scans, as a radiologist looks at them: the patient's right is on the picture's left.

slices   one slice in a window, with bleeding outlined
framing  which slices, and which part of them, a picture shows
paths    outlines as paths of SVG
legend   volumes in words, with the colours of their lines
capture  pictures of a prediction for viewers that show pictures only
sheet    contact sheets: a scan's slices side by side
viewer   a slider over slices as HTML that needs no kernel and no network (viewer.html, iframe.html)

It stands below `Scan`, so that a scan can show itself, and takes whatever has a scan's attributes (`framing.Volume`).
"""

from __future__ import annotations

from hemotorch.pictures.framing import head_box, pick_slices
from hemotorch.pictures.sheet import contact_sheet
from hemotorch.pictures.slices import PREDICTED_RGB, TRUTH_RGB, slice_rgb

__all__ = ["PREDICTED_RGB", "TRUTH_RGB", "contact_sheet", "head_box", "pick_slices", "slice_rgb"]
