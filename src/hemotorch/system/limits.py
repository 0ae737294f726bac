"""How much a file may ask for. Checked from headers, before anything is unpacked or allocated.

A few kB can claim a volume of many GB, and gzip packs 3 GB of zeros into 3 MB. Whoever truly has larger scans raises
the bounds with environment variables, which the processes that a command starts inherit.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path

from hemotorch.errors import InputError, OptionError

MAX_VOXELS, MAX_UNPACKED_GB = "HEMOTORCH_MAX_VOXELS", "HEMOTORCH_MAX_UNPACKED_GB"

#: Of one volume, unless raised: 1024 slices of 512 x 512, four times a head at 0.6 mm; 512 MiB as int16.
VOXELS = 2**28
BYTES_PER_VOXEL = 8  #: the largest type that a scan is stored in, float64
SLICES_PER_VOLUME = 16  #: one slice alone may hold this share of a volume's voxels: 4096 x 4096 pixels
#: Files of text (JSON, CSV, TOML) are parsed into objects that take some ten times their size.
TEXT_SHARE = 8

#: Credible distances in mm. CT has pixels of 0.1 (a temporal bone) to 1 mm and slices of 0.2 to 10 mm; the rest leaves
#: room for animals, for coarse previews and for localisers.
PIXEL_MM = (0.01, 30.0)
SLICE_MM = (0.01, 100.0)


def max_voxels() -> int:
    """How many voxels one volume may have: 2**28, or HEMOTORCH_MAX_VOXELS. Raises OptionError for no number."""
    return int(_from_environment(MAX_VOXELS, VOXELS))


def max_unpacked() -> int:
    """How many bytes a file may hold, unpacked: HEMOTORCH_MAX_UNPACKED_GB, else 8 for each voxel allowed."""
    gigabytes = _from_environment(MAX_UNPACKED_GB, 0.0)
    # Checkpoints and tables are no scans: a lower bound on voxels must not refuse them.
    return int(gigabytes * 1e9) or BYTES_PER_VOXEL * max(VOXELS, max_voxels())


def max_pixels() -> int:
    """How many pixels one image may have: 4096 x 4096, more as the bound on voxels is raised."""
    return max_voxels() // SLICES_PER_VOLUME


def max_text() -> int:
    """How many bytes a file of text may have: 2**28, more as the bound on unpacked bytes is raised."""
    return max_unpacked() // TEXT_SHARE


def allow_voxels(count: int | None) -> None:
    """Sets the bound on voxels for this process and those it starts; None leaves it as it is."""
    if count is not None:
        os.environ[MAX_VOXELS] = str(count)


def raised() -> dict[str, str]:
    """The bounds that are set in the environment, for processes that do not inherit it."""
    return {name: os.environ[name] for name in (MAX_VOXELS, MAX_UNPACKED_GB) if name in os.environ}


def check_voxels(shape: Iterable[int], where: Path | str) -> None:
    """Raises InputError if a volume of this shape has more voxels than are read, saying how to raise the bound."""
    count = math.prod(int(length) for length in shape)
    if count > max_voxels():
        what = f"has {_thousands(count)} voxels, more than the {_thousands(max_voxels())} that are read"
        raise InputError(what, where, f"if it is right, set --max-voxels or {MAX_VOXELS} to {count}")


def check_pixels(rows: int, columns: int, where: Path | str) -> None:
    """Raises InputError if an image has more pixels than are read, saying how to raise the bound."""
    count = rows * columns
    if count > max_pixels():
        what = f"has {rows} x {columns} pixels, more than the {_thousands(max_pixels())} that are read"
        wanted = SLICES_PER_VOLUME * count
        raise InputError(what, where, f"if it is right, set --max-voxels or {MAX_VOXELS} to {wanted}")


def check_unpacked(size: int, where: Path | str) -> None:
    """Raises InputError if a file holds more bytes, unpacked, than are read, saying how to raise the bound."""
    if size > max_unpacked():
        what = f"holds {size / 1e9:.1f} GB unpacked, more than the {max_unpacked() / 1e9:.1f} GB that are read"
        raise InputError(what, where, f"if it is right, set {MAX_UNPACKED_GB} to {math.ceil(size / 1e9)}")


def check_spacing(pixels_mm: Iterable[float], slices_mm: Iterable[float], where: Path | str) -> None:
    """Raises InputError if no CT has such distances between its pixels, or between its slices, in mm."""
    _check_distances("pixels", pixels_mm, PIXEL_MM, where)
    _check_distances("slices", slices_mm, SLICE_MM, where)


def _check_distances(
    name: str, distances_mm: Iterable[float], credible: tuple[float, float], where: Path | str
) -> None:
    least, most = credible
    for mm in distances_mm:
        if not least <= mm <= most:
            what = f"its {name} are {mm:.3g} mm apart, which no CT has ({least:g} to {most:g} mm)"
            raise InputError(what, where, "correct its spacing")


def _from_environment(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1e-3 <= value <= 2**53:
        raise OptionError(f"must be a number above zero, not '{text}'", name, "correct the environment variable")
    return value


def _thousands(count: int) -> str:
    if count < 10**15:
        return f"{count:,}"
    return f"{float(min(count, 10**300)):.0e}"
