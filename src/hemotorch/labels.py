"""The five types of intracranial haemorrhage, their codes in a mask, and their names in public datasets."""

from __future__ import annotations

import numpy as np

#: A mask is uint8: 0 is no bleeding, 1 to 5 are the types in this order, UNTYPED is bleeding of unknown type.
TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
UNTYPED = 6
CODES = {name: code for code, name in enumerate(TYPES, start=1)}

#: Radiologists' short names.
SHORT_NAMES = {
    "epidural": "EDH",
    "intraparenchymal": "IPH",
    "intraventricular": "IVH",
    "subarachnoid": "SAH",
    "subdural": "SDH",
}

#: RGB of each type in pictures. Searched for: with full colour vision and as Machado et al. 2009 (IEEE TVCG 15(6):1291)
#: simulate protanopia, deuteranopia and tritanopia, any two of these, of the green of truth and of the greys stay at
#: least 17 apart in CIELAB. Types that often bleed together have the most distant ones.
COLOURS = {
    "epidural": (235, 150, 20),
    "intraparenchymal": (235, 70, 45),
    "intraventricular": (20, 125, 255),
    "subarachnoid": (240, 225, 60),
    "subdural": (190, 110, 200),
}

#: Column of each type in `hemorrhage_diagnosis_raw_ct.csv` of PhysioNet CT-ICH v1.3.1, in that file's order.
CT_ICH_COLUMNS = {
    "Intraventricular": "intraventricular",
    "Intraparenchymal": "intraparenchymal",
    "Subarachnoid": "subarachnoid",
    "Epidural": "epidural",
    "Subdural": "subdural",
}


def types_per_slice(mask: np.ndarray) -> np.ndarray:
    """Which of TYPES each slice of a typed mask holds.

    mask: (slices, rows, columns) uint8 codes. Returns (slices, 5) bool; untyped bleeding sets none of them.
    """
    flat = mask.reshape(len(mask), -1)
    return np.stack([(flat == code).any(axis=1) for code in CODES.values()], axis=1)
