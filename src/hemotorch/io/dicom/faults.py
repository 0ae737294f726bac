"""The faults that real archives have, put into a series before it is written: for phantoms and tests.

A fault changes the dataset of one file, or which files there are. docs/dicom.md says what is done about each when it is
read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.io.dicom.slice_file import BIG, DEFLATED, IMPLICIT, RLE, SliceFile, uid_of

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

Fault = Callable[[list[SliceFile]], list[SliceFile]]


def _each(change: Callable[[SliceFile], None]) -> Fault:
    """A fault of every file."""

    def fault(files: list[SliceFile]) -> list[SliceFile]:
        for file in files:
            change(file)
        return files

    return fault


def _one(change: Callable[[SliceFile], None]) -> Fault:
    """A fault of the file in the middle."""

    def fault(files: list[SliceFile]) -> list[SliceFile]:
        change(files[len(files) // 2])
        return files

    return fault


def _put(**values: Any) -> Callable[[SliceFile], None]:
    """Sets attributes; None removes one."""

    def change(file: SliceFile) -> None:
        for name, value in values.items():
            if value is None:
                if name in file.dataset:
                    delattr(file.dataset, name)
            else:
                setattr(file.dataset, name, value)

    return change


def _syntax(uid: str) -> Callable[[SliceFile], None]:
    def change(file: SliceFile) -> None:
        file.syntax = uid

    return change


def _placed(files: list[SliceFile]) -> list[SliceFile]:
    """The files that say where they lie and in which direction; a dose page does not."""
    return [
        file for file in files if "ImagePositionPatient" in file.dataset and "ImageOrientationPatient" in file.dataset
    ]


def _moved(files: list[SliceFile], heights: Callable[[int], float]) -> list[SliceFile]:
    """Slices moved along z by so many mm."""
    for index, file in enumerate(_placed(files)):
        x, y, z = (float(value) for value in file.dataset.ImagePositionPatient)
        file.dataset.ImagePositionPatient = [f"{x:.6f}", f"{y:.6f}", f"{z + heights(index):.6f}"]
    return files


def _tilt(files: list[SliceFile], degrees: float, tag: float) -> list[SliceFile]:
    """Slices as a tilted gantry makes them: rows turned about x, the table moving along z as before."""
    angle = np.deg2rad(degrees)
    for file in _placed(files):
        file.dataset.ImageOrientationPatient = ["1", "0", "0", "0", f"{np.cos(angle):.9f}", f"{np.sin(angle):.9f}"]
        file.dataset.GantryDetectorTilt = f"{tag:g}"
    return files


def _copy(file: SliceFile, name: str, **values: Any) -> SliceFile:
    """A copy of a file under another name."""
    import copy

    twin = replace(file, dataset=copy.deepcopy(file.dataset), name=name)
    _put(**values)(twin)
    return twin


def _extra_series(files: list[SliceFile], label: str, number: int, **values: Any) -> list[SliceFile]:
    """All files again as another series of the same study."""
    copies = []
    for index, file in enumerate(files):
        twin = _copy(
            file,
            f"{label}_{file.name}",
            SeriesInstanceUID=uid_of(file.dataset.get("SeriesInstanceUID"), label),
            SOPInstanceUID=uid_of(file.dataset.get("SOPInstanceUID"), label, index),
            SeriesNumber=number,
        )
        _put(**values)(twin)
        copies.append(twin)
    return copies


def _localizer(files: list[SliceFile]) -> list[SliceFile]:
    """A localizer beside the series."""
    picture = _extra_series(
        files[:1], "localizer", 1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesDescription="Scout"
    )
    _put(ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"], ConvolutionKernel=None)(picture[0])
    return [*picture, *files]


def _dose_page(files: list[SliceFile]) -> list[SliceFile]:
    page = _extra_series(
        files[:1],
        "dose",
        999,
        SOPClassUID=_SECONDARY_CAPTURE,
        SeriesDescription="Dose Report",
        ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"],
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
    )
    return [*files, *page]


def _colour_map(files: list[SliceFile]) -> list[SliceFile]:
    """A colour map of perfusion beside the series."""
    maps = _extra_series(
        files[:3], "map", 500, ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"], SeriesDescription="CBF"
    )
    for file in maps:
        _put(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsAllocated=8)(file)
        _put(BitsStored=8, HighBit=7, PixelRepresentation=0)(file)
        file.stored = np.repeat((file.hu[..., None] > 0) * 200, 3, axis=2)
    return [*files, *maps]


def _bone_kernel(files: list[SliceFile]) -> list[SliceFile]:
    return [*_extra_series(files, "bone", 1, ConvolutionKernel="BONE", SeriesDescription="Head bone"), *files]


def _contrast_series(files: list[SliceFile]) -> list[SliceFile]:
    extra = _extra_series(files, "cta", 1, ContrastBolusAgent="IOMEPROL", SeriesDescription="Head with contrast")
    return [*extra, *files]


def _reformat(files: list[SliceFile]) -> list[SliceFile]:
    """A coronal series cut from the same volume."""
    extra = _extra_series(files, "coronal", 3, ImageType=["DERIVED", "SECONDARY", "REFORMATTED", "MPR"])
    for index, file in enumerate(extra):
        _put(ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"], ImagePositionPatient=["0", str(index), "0"])(file)
    return [*files, *extra]


def _two_kernels_one_uid(files: list[SliceFile]) -> list[SliceFile]:
    extra = []
    for index, file in enumerate(files):
        instance = uid_of(file.dataset.get("SOPInstanceUID"), "bone", index)
        extra.append(_copy(file, f"b{file.name}", ConvolutionKernel="BONEPLUS", SOPInstanceUID=instance))
    return [*files, *extra]


def _duplicates(files: list[SliceFile]) -> list[SliceFile]:
    return [*files, *(_copy(file, f"copy_{file.name}") for file in files[2:5])]


def _same_place(files: list[SliceFile]) -> list[SliceFile]:
    """Three positions scanned again in a second acquisition."""
    again = []
    for file in files[2:5]:
        instance = uid_of(file.dataset.get("SOPInstanceUID"), "again", file.name)
        again.append(_copy(file, f"again_{file.name}", SOPInstanceUID=instance, AcquisitionNumber=2))
    return [*files, *again]


def _scanned_twice(files: list[SliceFile]) -> list[SliceFile]:
    again = []
    for file in files:
        instance = uid_of(file.dataset.get("SOPInstanceUID"), "again", file.name)
        again.append(_copy(file, f"again_{file.name}", SOPInstanceUID=instance, AcquisitionNumber=2))
    return [*files, *again]


def _missing(files: list[SliceFile]) -> list[SliceFile]:
    return [file for index, file in enumerate(files) if index != len(files) // 2]


def _shuffled(files: list[SliceFile]) -> list[SliceFile]:
    """Names and instance numbers that say nothing of the order."""
    order = np.random.default_rng(0).permutation(len(files))
    for index, file in zip(order.tolist(), files, strict=True):
        file.name = f"IM{index:05d}"
        file.dataset.InstanceNumber = int((index * 7) % len(files)) + 1
    return files


def _signed_as_unsigned(file: SliceFile) -> None:
    """Signed HU under a header that says unsigned."""
    file.stored = file.hu.astype(np.int16).view(np.uint16)
    _put(PixelRepresentation=0, RescaleIntercept="0")(file)


def _unsigned_as_signed(file: SliceFile) -> None:
    """12-bit values without sign under a header that says signed."""
    stored = np.clip(file.hu.astype(int) + 2048, 0, 4095)
    file.stored = np.where(stored > 2047, stored - 4096, stored)
    _put(BitsStored=12, HighBit=11, RescaleIntercept="-2048")(file)


def _overflow(file: SliceFile) -> None:
    """A clip of 3,500 HU that ran over the end of 12 bits."""
    hu = file.hu.astype(int).copy()
    row, column = hu.shape[0] // 2, hu.shape[1] // 2
    hu[row - 3 : row + 4, column - 3 : column + 4] = 3060
    hu[row - 1 : row + 2, column - 1 : column + 2] = 3500
    file.stored = (hu + 1024).clip(0) % 4096
    _put(BitsStored=12, HighBit=11, PixelRepresentation=0)(file)


def _circle_padding(value: int) -> Callable[[SliceFile], None]:
    """Padding outside the scanner's circle."""

    def change(file: SliceFile) -> None:
        rows, columns = file.hu.shape
        y, x = np.mgrid[:rows, :columns]
        outside = np.hypot(y - (rows - 1) / 2, x - (columns - 1) / 2) > min(rows, columns) / 2
        file.stored = np.where(outside, value, file.hu.astype(int) + 1024)
        file.dataset.PixelPaddingValue = value

    return change


def _high_bits(file: SliceFile) -> None:
    """12 stored bits with an overlay in the bits above them."""
    stored = (file.hu.astype(int) + 1024).clip(0, 4095)
    stored[:8, :8] |= 0x1000
    file.stored = stored
    _put(BitsStored=12, HighBit=11, PixelRepresentation=0)(file)


def _slope_per_slice(files: list[SliceFile]) -> list[SliceFile]:
    for index, file in enumerate(files):
        _put(RescaleSlope="0.5" if index % 2 else "1", RescaleIntercept=str(-1024 - index))(file)
    return files


def _eight_bits(file: SliceFile) -> None:
    grey = np.clip((file.hu.astype(float) + 10) * 255 / 100, 0, 255)
    file.stored = np.rint(grey)
    _put(BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0, RescaleIntercept="0")(file)


def _not_hu(file: SliceFile) -> None:
    """The intercept was lost."""
    file.stored = file.hu.astype(int) + 1024
    _put(RescaleIntercept="0", PixelRepresentation=0)(file)


def _without_rescale(file: SliceFile) -> None:
    """Pixels as before, and no word on what they stand for."""
    file.stored = file.hu.astype(int) + 1024
    _put(RescaleSlope=None, RescaleIntercept=None)(file)


def _cut(file: SliceFile) -> None:
    file.cut = file.hu.size // 2


def _no_preamble(file: SliceFile) -> None:
    file.preamble = False


def _no_group_2(file: SliceFile) -> None:
    file.group_2 = False
    file.syntax = IMPLICIT


def _prone(files: list[SliceFile]) -> list[SliceFile]:
    """The same head lying on its face: rows and columns run the other way, the position is the other corner."""
    for file in _placed(files):
        d = file.dataset
        rows, columns = file.hu.shape
        axes = np.array(d.ImageOrientationPatient, float)
        steps = np.array(d.PixelSpacing, float)
        corner = np.array(d.ImagePositionPatient, float)
        corner = corner + axes[:3] * steps[1] * (columns - 1) + axes[3:] * steps[0] * (rows - 1)
        d.ImagePositionPatient = [f"{value:.6f}" for value in corner]
        d.ImageOrientationPatient = [f"{-value:.9f}"[:16] for value in axes]
        d.PatientPosition = "HFP"
        file.hu = file.hu[::-1, ::-1]
        if file.stored is not None:
            file.stored = file.stored[::-1, ::-1]
    return files


def _rotated(files: list[SliceFile]) -> list[SliceFile]:
    """Rows and columns exchanged."""
    for file in _placed(files):
        axes = list(file.dataset.ImageOrientationPatient)
        file.dataset.ImageOrientationPatient = [*axes[3:], *axes[:3]]
        file.dataset.PixelSpacing = list(file.dataset.PixelSpacing)[::-1]
        file.hu = file.hu.T
        if file.stored is not None:
            file.stored = file.stored.swapaxes(0, 1)
        file.dataset.Rows, file.dataset.Columns = file.hu.shape
    return files


def _nested(files: list[SliceFile]) -> list[SliceFile]:
    for file in files:
        file.name = f"PAT0/STU0/SER{int(file.dataset.InstanceNumber) % 2}/{Path(file.name).stem}"
    return files


def _last_millimetres(files: list[SliceFile]) -> list[SliceFile]:
    """The upper half in slices half as far apart, as where a protocol changes."""
    half = len(files) // 2
    usual = float(files[1].dataset.ImagePositionPatient[2]) - float(files[0].dataset.ImagePositionPatient[2])
    return _moved(files, lambda index: -usual / 2 * max(0, index - half))


#: What can be wrong with a series, by name.
FAULTS: dict[str, Fault] = {
    "shuffled": _shuffled,
    "nested": _nested,
    "tilt": lambda files: _tilt(files, 18.5, 18.5),
    "tilt-other-sign": lambda files: _tilt(files, 18.5, -18.5),
    "tilt-tag-only": _each(_put(GantryDetectorTilt="20")),
    "uneven": _last_millimetres,
    "missing-slice": _missing,
    "duplicates": _duplicates,
    "same-place": _same_place,
    "scanned-twice": _scanned_twice,
    "overlap": _each(_put(SliceThickness="20")),
    "prone": _prone,
    "rotated": _rotated,
    "localizer": _localizer,
    "dose-page": _dose_page,
    "colour-map": _colour_map,
    "bone-kernel": _bone_kernel,
    "contrast-series": _contrast_series,
    "reformat": _reformat,
    "two-kernels-one-uid": _two_kernels_one_uid,
    "contrast": _each(_put(ContrastBolusAgent="IOHEXOL")),
    "signed-as-unsigned": _each(_signed_as_unsigned),
    "unsigned-as-signed": _each(_unsigned_as_signed),
    "overflow": _one(_overflow),
    "padding": _each(_circle_padding(-2000)),
    "padding-in-tissue": _each(_circle_padding(1064)),
    "high-bits": _each(_high_bits),
    "slope-per-slice": _slope_per_slice,
    "no-rescale-once": _one(_without_rescale),
    "intercept-lost": _each(_not_hu),
    "eight-bits": _each(_eight_bits),
    "inverted": _each(_put(PhotometricInterpretation="MONOCHROME1")),
    "no-position": _each(_put(ImagePositionPatient=None)),
    "no-position-once": _one(_put(ImagePositionPatient=None)),
    "no-direction": _each(_put(ImageOrientationPatient=None)),
    "no-direction-once": _one(_put(ImageOrientationPatient=None)),
    "no-pixel-size": _each(_put(PixelSpacing=None)),
    "no-uids": _each(_put(StudyInstanceUID=None, SeriesInstanceUID=None, SOPInstanceUID=None)),
    "no-type-2": _each(_put(PatientID=None, PatientBirthDate=None, SliceThickness=None, ImageType=None, KVP=None)),
    "cut-once": _one(_cut),
    "cut-all": _each(_cut),
    "no-preamble": _each(_no_preamble),
    "no-group-2": _each(_no_group_2),
    "implicit": _each(_syntax(IMPLICIT)),
    "big-endian": _each(_syntax(BIG)),
    "deflated": _each(_syntax(DEFLATED)),
    "rle": _each(_syntax(RLE)),
}
