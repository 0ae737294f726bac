"""A prediction as files: the mask in the scan's own grid, NAME.json and a contact sheet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hemotorch import NOTICE, __version__
from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.inference.predictor import Predictor
from hemotorch.io import nifti, read_scan, write_mask
from hemotorch.io.walk import grouped, walk, why_unread, without_parents
from hemotorch.pictures import contact_sheet
from hemotorch.scan import Prediction
from hemotorch.system.device import is_out_of_memory
from hemotorch.system.files import atomic, jsonable, output_folder, write_json
from hemotorch.system.progress import progress

ENDINGS = ("_mask.nii.gz", ".png", ".json")  #: of the files that a scan leaves
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
    paths, unreadable = find_scans(scans, folder.resolve())
    predictor = Predictor.load(model, device)
    yield from unreadable
    names = name_scans(paths)
    for path in progress(paths, "predicting", unit="scan"):
        try:
            if not overwrite:
                _must_be_new(folder, names[path], path)
            yield path, predict_file(predictor, path, folder, names[path], any_anatomy)
        except HemotorchError as error:
            yield path, error


def predict_file(
    predictor: Predictor, path: Path, folder: Path, name: str, any_anatomy: bool = False
) -> dict[str, Any]:
    """Predicts one scan and writes its files as `write_prediction` does. Raises HemotorchError."""
    try:
        began = time.perf_counter()
        scan = read_scan(path)
        read = time.perf_counter() - began
        prediction = predictor.predict(scan, any_anatomy)
        prediction.seconds["read"] = round(read, 4)
        return write_prediction(prediction, folder, name)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        what = "there is not enough memory for this scan"
        raise RunError(what, path, "predict it on a larger machine") from error


def _must_be_new(folder: Path, name: str, scan: Path) -> None:
    there = [file for file in (f"{name}{ending}" for ending in ENDINGS) if (folder / file).exists()]
    if there:
        todo = "add --overwrite or choose another --out"
        raise InputError(f"{there[0]} is in {folder} already", scan, todo)


def write_prediction(prediction: Prediction, folder: Path, name: str) -> dict[str, Any]:
    """Writes NAME_mask.nii.gz, NAME.png and, last, NAME.json, whose content is returned."""
    began = time.perf_counter()
    write_mask(prediction.scan, prediction.mask, folder / f"{name}_mask.nii.gz", nifti.PREDICTION_MARK)
    sheet = contact_sheet(prediction.scan, found=prediction.mask)
    with atomic(folder / f"{name}.png") as temporary:
        sheet.save(temporary, compress_level=1)
    result = {
        "scan": [str(path) for path in prediction.scan.paths],
        "volume_ml": {name: round(volume, 3) for name, volume in prediction.volume_ml.items()},
        "slices_with_bleeding": prediction.slices_with_bleeding,
        "model": prediction.model,
        "hemotorch": __version__,
        "warnings": list(prediction.warnings),
        "seconds": {**prediction.seconds, "write": round(time.perf_counter() - began, 4)},
        "notice": NOTICE,
    }
    write_json(folder / f"{name}.json", result)
    return dict(jsonable(result))


def find_scans(given: Sequence[Path | str], out: Path) -> tuple[list[Path], list[tuple[Path, HemotorchError]]]:
    """The files to predict, each once, and what of the paths given cannot be: folders without scans, other formats."""
    found: list[Path] = []
    failed: list[tuple[Path, HemotorchError]] = []
    for path in map(Path, given):
        if not path.is_dir():
            found.append(path)
            continue
        inside, unread = _in_folder(path, out)
        found.extend(inside)
        failed.extend((path, InputError(reason, path / names)) for names, reason in grouped(unread, path))
        if not inside and not unread:
            todo = "name NIfTI files (.nii, .nii.gz) or a folder of them"
            failed.append((path, InputError("holds no scan", path, todo)))
    return list({path.resolve(): path for path in found}.values()), failed


def _in_folder(folder: Path, out: Path) -> tuple[list[Path], dict[Path, str]]:
    """All NIfTI volumes in a folder and below it, but masks of scans beside them and what was predicted before.

    Also returned: the reason for each thing that looks like a scan and is not read.
    """
    met = walk(folder)
    mine = out != folder.resolve()
    files = [path for path in met.files if not (mine and out in path.resolve().parents)]
    found = [path for path in files if nifti.is_nifti(path)]
    unread = without_parents(met.unread, found, folder)
    unread = {path: reason for path, reason in unread.items() if not (mine and out in path.parents)}
    for path in files:
        if reason := why_unread(path):
            unread[path] = reason
    stems = {(path.parent, nifti.stem(path)) for path in found}
    masks = {(parent, name) for parent, name in stems if name.endswith("_mask") and (parent, name[:-5]) in stems}
    return [path for path in found if (path.parent, nifti.stem(path)) not in masks], unread


def name_scans(paths: Sequence[Path]) -> dict[Path, str]:
    """What each scan's files are called: its file's name; where names repeat, with its folder, suffix or whole path."""
    longer: tuple[Callable[[Path], str], ...] = (
        lambda path: f"{path.resolve().parent.name}_{_stem(path)}",
        lambda path: f"{path.resolve().parent.name}_{path.name.replace('.', '_')}",
        lambda path: "_".join(path.resolve().parts[1:]).replace(".", "_"),
    )
    names = {path: _stem(path) for path in paths}
    for name_of in longer:
        repeated = Counter(names.values())
        names = {path: name_of(path) if repeated[name] > 1 else name for path, name in names.items()}
    return names


def _stem(path: Path) -> str:
    return nifti.stem(path) if nifti.is_nifti(path) else path.stem
