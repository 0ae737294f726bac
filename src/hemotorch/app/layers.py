"""Masks over a scan: truth, predictions, versions. Each is a folder of mask.npy, probability.npy and layer.json.

    truth/                  "truth"
    predictions/NAME/       "prediction:NAME"
    versions/NUMBER/        "version:NUMBER"

layer.json is written last: without it there is no layer. Masks hold codes of `labels`: bleeding of no known type is 6.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from scipy import ndimage

from hemotorch.app.database import now
from hemotorch.app.refusals import Missing
from hemotorch.app.schemas import Layer, Piece, Schema
from hemotorch.app.stored_scan import mapped
from hemotorch.errors import InputError
from hemotorch.head.diameter import longest_diameter
from hemotorch.inference.abc2 import abc2
from hemotorch.labels import CODES, UNTYPED
from hemotorch.scan import Scan
from hemotorch.system.files import atomic, write_text

MASK, PROBABILITY, LAYER = "mask.npy", "probability.npy", "layer.json"
TRUTH, PREDICTION, VERSION = "truth", "prediction", "version"
MOST_PIECES = 100  #: that are listed; a noisy mask has thousands
_FOLDERS = {PREDICTION: "predictions", VERSION: "versions"}
_ID = re.compile(r"truth|prediction:[A-Za-z0-9][A-Za-z0-9._-]{0,99}|version:[1-9][0-9]{0,8}")
_UNTYPED_NAME = "bleeding"


class LayerRecord(Schema):
    """What layer.json holds: the layer as the interface shows it, and what its page shows beside it.

    lesions: connected pieces, largest first. abc2_ml: of the largest piece. model_digest: of a prediction.
    """

    layer: Layer
    typed: bool
    lesions: list[Piece]
    abc2_ml: float | None
    longest_mm: float | None
    interval_ml: tuple[float, float] | None = None
    remarks: tuple[str, ...] = ()
    model_digest: str = ""

    @property
    def total_ml(self) -> float | None:
        """All that is outlined; None if the spacing is unknown."""
        return self.layer.volume_ml.get("total")


def layer_folder(study: Path, layer: str) -> Path:
    """Where a layer lies. Raises InputError for what is no layer's id."""
    if not _ID.fullmatch(layer):
        raise InputError("is no layer", layer[:60], "layers are truth, prediction:NAME and version:NUMBER")
    kind, _, name = layer.partition(":")
    return study / TRUTH if kind == TRUTH else study / _FOLDERS[kind] / name


def write_layer(
    study: Path,
    layer: str,
    scan: Scan,
    mask: np.ndarray,
    *,
    title: str,
    typed: bool,
    user: str = "",
    probability: np.ndarray | None = None,
    interval_ml: tuple[float, float] | None = None,
    remarks: tuple[str, ...] = (),
    model_digest: str = "",
) -> LayerRecord:
    """Writes a layer, whole or not at all.

    Args:
        study: the study's folder.
        layer: its id.
        scan: that it lies over.
        mask: (slices, rows, columns) uint8, codes of `labels` if typed, else not zero where there is bleeding.
        title: for people.
        typed: whether types of bleeding are told apart.
        user: who made it, "" for a model.
        probability: of the mask's shape, in [0, 1]; None if there is none.
        interval_ml: of the total.
        remarks: what a reader has to know.
        model_digest: of the model that made it.

    Raises:
        InputError: if the mask has another shape than the scan.
        RunError: if the disk is full or read-only.
    """
    if mask.shape != scan.shape or mask.dtype != np.uint8:
        raise InputError(f"a mask of {mask.dtype} and shape {mask.shape} does not fit its scan {scan.shape}", layer)
    if not typed:
        mask = np.where(mask > 0, np.uint8(UNTYPED), np.uint8(0))
    folder = layer_folder(study, layer)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LAYER).unlink(missing_ok=True)
    _save(folder / MASK, mask)
    if probability is not None:
        _save(folder / PROBABILITY, np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8))
    longest = longest_diameter(mask, *scan.pixel_mm) if scan.spacing_known else None
    by_hand = abc2(scan, mask)
    shown = Layer(
        id=layer,
        title=title,
        kind=layer.partition(":")[0],
        volume_ml=volumes_ml(scan, mask, typed),
        slices_with_bleeding=np.flatnonzero(mask.reshape(len(mask), -1).any(axis=1)).tolist(),
        has_probability=probability is not None,
        user=user,
        time=now(),
    )
    record = LayerRecord(
        layer=shown,
        typed=typed,
        lesions=pieces(scan, mask),
        abc2_ml=None if by_hand is None else rounded(by_hand.ml),
        longest_mm=None if longest is None else rounded(longest.mm),
        interval_ml=interval_ml,
        remarks=remarks,
        model_digest=model_digest,
    )
    write_text(folder / LAYER, record.model_dump_json())
    return record


def read_layer(study: Path, layer: str) -> LayerRecord:
    """A layer's record. Raises InputError if there is no such layer."""
    path = layer_folder(study, layer) / LAYER
    try:
        return LayerRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise Missing("there is no such layer", layer) from error
    except ValidationError as error:
        raise InputError("is damaged", layer, "restore the workspace from a backup, or predict again") from error


def read_layers(study: Path) -> list[LayerRecord]:
    """All layers of a study, the oldest first, truth before them."""
    ids = [TRUTH]
    for kind, name in _FOLDERS.items():
        parent = study / name
        ids.extend(f"{kind}:{path.name}" for path in (parent.iterdir() if parent.is_dir() else ()))
    records = []
    for layer in ids:
        if _ID.fullmatch(layer) and (layer_folder(study, layer) / LAYER).is_file():
            records.append(read_layer(study, layer))
    return sorted(records, key=lambda record: (record.layer.id != TRUTH, record.layer.time))


def newest(records: list[LayerRecord]) -> LayerRecord | None:
    """The layer whose mL the worklist shows: the newest version, else the newest prediction."""
    for kind in (VERSION, PREDICTION):
        of_kind = [record for record in records if record.layer.kind == kind]
        if of_kind:
            return max(of_kind, key=lambda record: record.layer.time)
    return None


def read_mask(study: Path, layer: str) -> np.ndarray:
    """(slices, rows, columns) uint8 codes, mapped into memory. Raises InputError if there is no such layer."""
    return _mapped(study, layer, MASK)


def read_probability(study: Path, layer: str) -> np.ndarray:
    """(slices, rows, columns) uint8, 255 is certain, mapped into memory. Raises InputError if there is none."""
    return _mapped(study, layer, PROBABILITY)


def _mapped(study: Path, layer: str, name: str) -> np.ndarray:
    folder = layer_folder(study, layer)
    if not (folder / LAYER).is_file() or not (folder / name).is_file():
        raise Missing("there is no such layer, or it has no such map", layer)
    return mapped(folder / name)


def volumes_ml(scan: Scan, mask: np.ndarray, typed: bool) -> dict[str, float | None]:
    """mL of all bleeding, "total", and of each type if types are told apart; None if the spacing is unknown."""
    counts = np.stack([np.bincount(codes.ravel(), minlength=UNTYPED + 1)[: UNTYPED + 1] for codes in mask])
    per_code = (counts * scan.voxel_ml[:, None]).sum(axis=0)
    volumes = {"total": rounded(per_code[1:].sum())}
    if typed:
        volumes |= {name: rounded(per_code[code]) for name, code in CODES.items()}
    return volumes


def pieces(scan: Scan, mask: np.ndarray) -> list[Piece]:
    """Connected pieces of bleeding, of each type apart, largest first. mask: codes of `labels`."""
    names = {code: name for name, code in CODES.items()}
    found: list[tuple[float, Piece]] = []
    for code in sorted(set(np.unique(mask).tolist()) - {0}):
        labels, _ = ndimage.label(mask == code, np.ones((3, 3, 3)))
        for number, box in enumerate(ndimage.find_objects(labels), start=1):
            piece = labels[box] == number
            voxels = piece.sum(axis=(1, 2))
            first = box[0].start
            ml = float((voxels * scan.voxel_ml[box[0]]).sum())
            middle = _middle(piece)
            centre = (middle[0] + first, middle[1] + box[1].start, middle[2] + box[2].start)
            kind = names.get(code, _UNTYPED_NAME)
            entry = Piece(ml=rounded(ml), kind=kind, centre=centre, first_slice=first, last_slice=int(box[0].stop) - 1)
            found.append((ml if math.isfinite(ml) else float(voxels.sum()), entry))
    found.sort(key=lambda pair: -pair[0])
    return [entry for _, entry in found[:MOST_PIECES]]


def _middle(piece: np.ndarray) -> tuple[int, int, int]:
    """The voxel of a piece that lies nearest to its centre of mass, in its slice of the largest area."""
    index = int(piece.sum(axis=(1, 2)).argmax())
    rows, columns = np.nonzero(piece[index])
    nearest = int(((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2).argmin())
    return index, int(rows[nearest]), int(columns[nearest])


def rounded(value: float) -> float | None:
    """To a thousandth; None for NaN, which JSON does not have."""
    return round(float(value), 3) if math.isfinite(value) else None


def _save(path: Path, array: np.ndarray) -> None:
    with atomic(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
