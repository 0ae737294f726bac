"""A synthetic head, its bleeding, and the CT that scans it.

anatomy         the head as continuous functions: skull, bone, scalp, face and neck
brain           what lies inside the skull, without bleeding
case            one patient, from its number to its scan and mask
fields          smooth random fields and signed distances of simple shapes
head_frame      the phantom's frame fitted to a scan of someone else, whole or a part
lesions         bleeding of the five types: its shape, its mass effect, its look
paint           bleeding painted into a scan of someone else
presets         what a phantom dataset is made of
projection      the scanner the long way round: projections and filtered back-projection
sample_lesions  random bleeding, and what is mistaken for it
scanner         the scanner in the image domain: blur, noise, artefacts
shell           what surrounds the brain, as HU
variety         what only some patients have: contrast, dense veins, surgery, parts of heads, thin slices
"""

from __future__ import annotations

from hemotorch.phantom.case import PhantomCase, make_case
from hemotorch.phantom.paint import paint
from hemotorch.phantom.presets import PRESETS, VERSION, Preset

__all__ = ["PRESETS", "VERSION", "PhantomCase", "Preset", "make_case", "paint"]
