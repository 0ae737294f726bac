"""The five types of intracranial haemorrhage, their codes in a mask, and their names in public datasets."""

from __future__ import annotations

import numpy as np

#: A mask is uint8: 0 is no bleeding, 1 to 5 are the types in this order, UNTYPED is bleeding of unknown type.
TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
UNTYPED = 6
CODES = {name: code for code, name in enumerate(TYPES, start=1)}

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
