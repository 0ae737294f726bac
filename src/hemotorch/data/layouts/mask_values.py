"""What the values of a mask mean: labels.json, nnU-Net's dataset.json, and the names that people give to bleeding."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from hemotorch.data.layouts.tables import is_number
from hemotorch.errors import InputError, nearest
from hemotorch.labels import CODES, UNTYPED
from hemotorch.system.files import read_json

LABELS = "labels.json"
NNUNET = "dataset.json"
#: What a label may be called in labels.json, and the code it gets.
MEANINGS = {"background": 0, **CODES, "bleeding": UNTYPED}

_HIGHEST = 255  # a mask is uint8
_ADVICE = f'say what each value means in {LABELS} beside it, as in {{"0": "background", "1": "epidural"}}'
#: Names without blanks, hyphens and the words for bleeding itself; "" is what is left of a bare "hemorrhage".
_NAMES = {
    "background": 0,
    "bg": 0,
    "no": 0,
    "none": 0,
    "normal": 0,
    "": UNTYPED,
    "any": UNTYPED,
    "blood": UNTYPED,
    "intracranial": UNTYPED,
    "edh": CODES["epidural"],
    "epidural": CODES["epidural"],
    "extradural": CODES["epidural"],
    "iph": CODES["intraparenchymal"],
    "intraparenchymal": CODES["intraparenchymal"],
    "parenchymal": CODES["intraparenchymal"],
    "intracerebral": CODES["intraparenchymal"],
    "ivh": CODES["intraventricular"],
    "intraventricular": CODES["intraventricular"],
    "ventricular": CODES["intraventricular"],
    "sah": CODES["subarachnoid"],
    "subarachnoid": CODES["subarachnoid"],
    "sdh": CODES["subdural"],
    "subdural": CODES["subdural"],
}
_BLEEDING = r"(hemorrhages?|hematomas?|bleedings?|bleeds?)"
_AGES = r"^(acuteonchronic|acute|subacute|chronic)"
#: Either intracerebral haemorrhage, one type of five, or intracranial haemorrhage, all of them.
_AMBIGUOUS = "ich"
_IGNORE = "ignore"  # nnU-Net's own name for what counts neither way


def declared_codes(path: Path) -> dict[int, int]:
    """The code of each mask value that labels.json declares.

    Args:
        path: of labels.json, {"1": "epidural", ...}.

    Returns:
        Codes of `labels` by mask value, 0 left out.

    Raises:
        InputError: if it is not such a table, or holds a name that is not known.
    """
    entries = read_json(path)
    if not isinstance(entries, dict) or not entries:
        raise InputError('must map mask values to names, as in {"1": "epidural"}', path)
    codes: dict[int, int] = {}
    for value, name in entries.items():
        code = code_of(name)
        if code is None:
            raise InputError(f"unknown label '{name}'", path, nearest(str(name), MEANINGS))
        codes[_mask_value(value, path)] = code
    return _without_background(codes, path)


def nnunet_codes(path: Path) -> tuple[dict[int, int], list[str]] | None:
    """The code of each mask value that nnU-Net's dataset.json declares.

    Args:
        path: of dataset.json. Its `labels` go from name to value or list of values (version 2, with regions), or from
            value to name (version 1).

    Returns:
        Codes of `labels` by mask value, 0 left out, and warnings; None if the file declares no labels.

    Raises:
        InputError: if the labels cannot be read, or a name is none that is known for bleeding.
    """
    info = read_json(path)
    if not isinstance(info, dict) or "labels" not in info:
        return None  # a file of that name from elsewhere
    names = _names_by_value(info["labels"], path)
    types = {code_of(name) for name in names.values()} - {None, 0, UNTYPED}
    codes: dict[int, int] = {}
    warnings: list[str] = []
    for value, name in sorted(names.items()):
        code = code_of(name)
        if _core(name) == _IGNORE:
            what = f"'{name}' ({value}) marks what nothing is known of, which no task here can leave out"
            todo = f'masks that hold it are refused, unless {LABELS} says that it is "background" or "bleeding"'
            warnings.append(f"{path.name}: {what}: {todo}")
            continue
        if _core(name) == _AMBIGUOUS:
            # Beside other types, and without another name for bleeding in the brain, it is one of the types.
            code = UNTYPED
            meaning = "bleeding of unknown type"
            if types and CODES["intraparenchymal"] not in types:
                code = CODES["intraparenchymal"]
                meaning = "intraparenchymal, as it stands beside other types"
            warnings.append(f"{path.name}: '{name}' ({value}) is taken as {meaning}; {LABELS} can say otherwise")
        if code is None:
            raise InputError(
                f"mask value {value} is called '{name}', which is no known type of bleeding", path, _ADVICE
            )
        codes[value] = code
    return _without_background(codes, path), warnings


def code_of(name: object) -> int | None:
    """The code that a label's name stands for, however it is spelled ("EDH", "epidural hematoma"); None if unknown."""
    if not isinstance(name, str) or not name.strip():
        return None
    return _NAMES.get(_core(name))


def _core(name: str) -> str:
    """The name in small letters, without blanks, hyphens, a bleeding's age and the words for bleeding."""
    text = unicodedata.normalize("NFKC", name).casefold().replace("haem", "hem")
    letters = "".join(letter for letter in text if letter.isalnum())
    if not letters:
        return text
    letters = re.sub(_AGES, "", letters)
    return re.sub(f"^{_BLEEDING}|{_BLEEDING}$", "", letters)


def _names_by_value(labels: object, path: Path) -> dict[int, str]:
    """The name of each value. Of several regions with one value the smallest names it."""
    if not isinstance(labels, dict) or not labels:
        raise InputError("'labels' must map names to mask values", path, _ADVICE)
    if all(is_number(key) and isinstance(name, str) and not is_number(name) for key, name in labels.items()):
        return {_mask_value(key, path): name for key, name in labels.items()}
    region_size: dict[int, int] = {}
    names: dict[int, str] = {}
    for name, region in labels.items():
        if not isinstance(region, list):
            region = [region]
        for value in {_mask_value(each, path) for each in region}:
            smallest = region_size.get(value, _HIGHEST + 1)
            if len(region) == smallest and code_of(name) != code_of(names[value]):
                raise InputError(f"mask value {value} is both '{names[value]}' and '{name}'", path, _ADVICE)
            if len(region) < smallest:
                region_size[value] = len(region)
                names[value] = name
    return names


def _mask_value(value: object, path: Path) -> int:
    """The value that JSON gives as text or number. Raises InputError if a mask cannot hold it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = ""
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        text = str(value)
    # Digits are counted before int() reads them: it refuses thousands of them with an error of its own.
    if not (is_number(text) and len(text) <= len(str(_HIGHEST)) and int(text) <= _HIGHEST):
        raise InputError(f"mask value '{str(value)[:40]}' is not a whole number from 0 to {_HIGHEST}", path)
    return int(text)


def _without_background(codes: Mapping[int, int], path: Path) -> dict[int, int]:
    if codes.get(0, 0) != 0:
        raise InputError("mask value 0 can only be background", path)
    return {value: code for value, code in codes.items() if value != 0}
