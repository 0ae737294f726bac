"""A prediction as files: the mask in the scan's own grid, NAME.json and a contact sheet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hemotorch import NOTICE, __version__
from hemotorch.draw import contact_sheet
from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.files import atomic, jsonable, output_folder, write_json
from hemotorch.io import nifti, read_scan, write_mask
from hemotorch.predict import Predictor
from hemotorch.progress import progress
from hemotorch.scan import Prediction

Result = dict[str, Any] | HemotorchError


def predict_files(
    model: Path | str,
    scans: Sequence[Path | str],
    out: Path | str,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
    overwrite: bool = False,
) -> Iterator[tuple[Path, Result]]:
    """Predicts files and folders of scans with one model load; yields each scan's path with its JSON or its error.

    A scan that fails does not stop the others. Raises InputError at once for a model or folder that cannot be used.
    """
    folder = output_folder(out, may_exist=True)
    mine = folder.resolve()
    found = [path for given in scans for path in _find(Path(given)) if mine not in path.resolve().parents]
    paths = list({path.resolve(): path for path in found}.values())
    predictor = Predictor.load(model, device)
    names = _names(paths)
    for path in progress(paths, "predicting", unit="scan"):
        try:
            name = names[path]
            if not overwrite and (folder / f"{name}.json").exists():
                raise InputError(f"{name}.json is in {folder} already", path, "add --overwrite or choose another --out")
            began = time.perf_counter()
            scan = read_scan(path)
            read = time.perf_counter() - began
            prediction = predictor.predict(scan, any_anatomy)
            prediction.seconds["read"] = round(read, 4)
            yield path, write_prediction(prediction, folder, name)
        except HemotorchError as error:
            yield path, error
        except (MemoryError, RuntimeError) as error:
            if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
                raise
            yield path, RunError("there is not enough memory for this scan", path, "predict it on a larger machine")


def write_prediction(prediction: Prediction, folder: Path, name: str) -> dict[str, Any]:
    """Writes NAME_mask.nii.gz, NAME.png and, last, NAME.json, whose content is returned."""
    began = time.perf_counter()
    write_mask(prediction.scan, prediction.mask, folder / f"{name}_mask.nii.gz")
    sheet = contact_sheet(prediction.scan, found=prediction.mask)
    with atomic(folder / f"{name}.png") as temporary:
        sheet.save(temporary, compress_level=1)
    result = {
        "scan": [str(path) for path in prediction.scan.paths],
        "volume_ml": prediction.volume_ml,
        "slices_with_bleeding": prediction.slices_with_bleeding,
        "model": prediction.model,
        "hemotorch": __version__,
        "warnings": list(prediction.warnings),
        "seconds": {**prediction.seconds, "write": round(time.perf_counter() - began, 4)},
        "notice": NOTICE,
    }
    write_json(folder / f"{name}.json", result)
    return dict(jsonable(result))


def _find(given: Path) -> list[Path]:
    """The scan at a path, or all NIfTI volumes in a folder and below it."""
    if not given.is_dir():
        return [given]
    found = sorted(path for path in given.rglob("*") if nifti.is_nifti(path) and path.is_file() and path.name[0] != ".")
    stems = {(path.parent, nifti.stem(path)) for path in found}
    found = [
        path
        for path in found
        if (path.parent, nifti.stem(path).removesuffix("_mask")) not in stems or not nifti.stem(path).endswith("_mask")
    ]  # the mask of the scan beside it
    if not found:
        raise InputError("holds no scan", given, "name NIfTI files (.nii, .nii.gz) or a folder of them")
    return found


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """What each scan's files are called: its file's name, with the folder's in front where names repeat."""

    def stem(path: Path) -> str:
        return nifti.stem(path) if nifti.is_nifti(path) else path.stem

    repeated = {name for name, count in Counter(map(stem, paths)).items() if count > 1}
    names = {path: f"{path.parent.name}_{stem(path)}" if stem(path) in repeated else stem(path) for path in paths}
    taken = Counter(names.values())
    for name, count in taken.items():
        if count > 1:
            raise InputError(
                f"{count} scans would all be written as '{name}'", todo="predict them into separate folders"
            )
    return names
