"""A prediction as files: the mask in the scan's own grid, NAME.json and a contact sheet."""

from __future__ import annotations

import os
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from hemotorch import NOTICE, __version__
from hemotorch.errors import HemotorchError, InputError, RunError, explain
from hemotorch.inference.load import load_model
from hemotorch.inference.predictor import Predictor
from hemotorch.io import VOLUME_SUFFIXES, files_of, is_predicted, is_volume, nifti, read_scan, stem, write_mask
from hemotorch.io.walk import grouped, walk, why_unread, without_parents
from hemotorch.pictures import contact_sheet
from hemotorch.scan import Prediction
from hemotorch.system.device import is_out_of_memory
from hemotorch.system.events import progress
from hemotorch.system.files import (
    atomic,
    clear_parts,
    exclusive,
    file_digest,
    file_status,
    jsonable,
    output_folder,
    read_json,
    short_name,
    write_json,
)

LOCK = ".lock"  #: in the output folder
ENDINGS = ("_mask.nii.gz", ".png", ".json")  #: of the files that a scan leaves
Result = dict[str, Any] | HemotorchError


def predict_files(
    model: Path | str | Sequence[Path | str],
    scans: Sequence[Path | str],
    out: Path | str,
    *,
    device: str = "auto",
    any_anatomy: bool = False,
    overwrite: bool = False,
) -> Iterator[tuple[Path, Result]]:
    """Predicts files and folders of scans with one model load; yields each scan's path with its JSON or its error.

    A scan that fails, however, does not stop the others. Raises InputError at once for a model or folder that cannot
    be used, RunError if another process predicts into the folder.
    """
    folder = output_folder(out, may_exist=True)
    with exclusive(folder / LOCK, busy(folder)):
        clear_parts(folder)
        paths, unreadable = find_scans(scans, folder.resolve())
        predictor = load_model(model, device)
        yield from unreadable
        names = name_scans(paths)
        for path in progress(paths, "predicting", unit="scan"):
            result: Result
            try:
                make_room(folder, names[path], path, overwrite)
                result = predict_file(predictor, path, folder, names[path], any_anatomy)
            except Exception as error:
                result = explain(error, path)
            yield path, result


def busy(folder: Path) -> RunError:
    """What is said if another process predicts into the folder."""
    return RunError("another prediction is writing into this folder", folder, "wait for it to end")


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


def make_room(folder: Path, name: str, scan: Path, overwrite: bool) -> None:
    """Removes an earlier prediction of the scan if it may be replaced, and what a killed one left of it.

    NAME.json, which is written last, says that a scan is done and holds the digests of its files. Without it, a mask
    with the mark of a prediction and a contact sheet with ours are left over from a process that was killed.

    Raises:
        InputError: if the scan is done and `overwrite` is False; if one of the files is the scan itself, was not
            written by a prediction, or was changed since.
    """
    files = [folder / f"{name}{ending}" for ending in ENDINGS]
    present = [file for file in files if file.exists() or file.is_symlink()]
    for file in present:
        if file.is_symlink() or not file.is_file() or (scan.exists() and file.samefile(scan)):
            raise InputError(f"{file.name} in {folder} is no prediction, and is not replaced", scan, _ELSEWHERE)
    record = files[-1]
    digests: dict[str, str] | None = None
    if record in present:
        digests = _digests(record)
        if digests is None:
            raise InputError(f"{record.name} in {folder} is no prediction, and is not replaced", scan, _ELSEWHERE)
        if not overwrite:
            todo = "add --overwrite or choose another --out"
            raise InputError(f"{present[0].name} is in {folder} already", scan, todo)
    for file in present:
        if file != record and not _is_ours(file, digests):
            what = f"{file.name} in {folder} was not written by a prediction, or was changed since, and is not replaced"
            raise InputError(what, scan, _ELSEWHERE)
    for file in reversed(present):  # the record first: from here on the scan is not done
        file.unlink()


_ELSEWHERE = "move it elsewhere or choose another --out"
_SHEET_MARK = ("Software", "hemotorch")  #: a text entry of each contact sheet


def is_result(value: object) -> bool:
    """Whether a JSON value is what `write_prediction` writes into NAME.json."""
    return isinstance(value, dict) and {"scan", "volume_ml", "hemotorch", "notice"} <= value.keys()


def _digests(record: Path) -> dict[str, str] | None:
    """The digests of a prediction's files; {} for one that has none yet, None for anything but a prediction."""
    try:
        value = read_json(record)
    except InputError:
        return None
    if not is_result(value):
        return None
    digests = value.get("sha256", {})
    return digests if isinstance(digests, dict) else None


def _is_ours(file: Path, digests: dict[str, str] | None) -> bool:
    if digests and file.name in digests:
        return file_digest(file) == digests[file.name]
    if file.name.endswith(ENDINGS[0]):
        return is_predicted(file) or _cut_short(file)
    try:
        with Image.open(file, formats=("PNG",)) as sheet:
            return sheet.info.get(_SHEET_MARK[0]) == _SHEET_MARK[1] or bool(digests is not None)
    except (OSError, SyntaxError, ValueError):
        return False


def _cut_short(mask: Path) -> bool:
    """Whether there is nothing in the file at all, which no reader drew."""
    return mask.stat().st_size == 0


def write_prediction(prediction: Prediction, folder: Path, name: str) -> dict[str, Any]:
    """Writes NAME_mask.nii.gz, NAME.png and, last, NAME.json, whose content is returned."""
    began = time.perf_counter()
    source = prediction.scan.source
    files = [] if source is None else list(source.files)
    sources = [file_status(path) for path in files]
    write_mask(prediction.scan, prediction.mask, folder / f"{name}_mask.nii.gz", nifti.PREDICTION_MARK)
    sheet = contact_sheet(prediction.scan, predicted=prediction.mask, typed=bool(prediction.task.types))
    with atomic(folder / f"{name}.png") as temporary:
        text = PngInfo()
        text.add_text(*_SHEET_MARK)
        sheet.save(temporary, compress_level=1, pnginfo=text)
    result = {
        "scan": files,
        "volume_ml": {name: round(volume, 3) for name, volume in prediction.volume_ml.items()},
        "slices_with_bleeding": prediction.slices_with_bleeding,
        "model": prediction.model,
        "hemotorch": __version__,
        "warnings": list(prediction.warnings),
        "seconds": {**prediction.seconds, "write": round(time.perf_counter() - began, 4)},
        "sources": sources,
        "sha256": {file.name: file_digest(file) for file in (folder / f"{name}{end}" for end in ENDINGS[:2])},
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
            todo = f"name files of scans ({', '.join(VOLUME_SUFFIXES)}) or a folder of them"
            failed.append((path, InputError("holds no scan", path, todo)))
    # Known by where they are, not by where a link leads: two links to one file are two scans with names of their own.
    return list({os.path.abspath(path): path for path in found}.values()), failed


def _in_folder(folder: Path, out: Path) -> tuple[list[Path], dict[Path, str]]:
    """All volumes in a folder and below it, but masks of scans beside them and what was predicted before.

    Also returned: the reason for each thing that looks like a scan and is not read.
    """
    entries = walk(folder)
    files, unread = entries.files, entries.unread
    if out != folder.resolve():
        files = [path for path in files if out not in path.resolve().parents]
        unread = {path: reason for path, reason in unread.items() if out not in path.parents}
    volumes = [path for path in files if is_volume(path)]
    read = set(files_of(volumes))
    unread = without_parents(unread, read, folder)
    for path in files:
        reason = why_unread(path)
        if reason is not None and path not in read:
            unread[path] = reason
    stems = {(path.parent, stem(path)) for path in volumes}
    scans = []
    for path in volumes:
        name = stem(path)
        is_mask = name.endswith("_mask") and (path.parent, name.removesuffix("_mask")) in stems
        if not is_mask:
            scans.append(path)
    return scans, unread


def name_scans(paths: Sequence[Path]) -> dict[Path, str]:
    """What each scan's files are called: its file's name; if names repeat, with its folder, suffix or whole path.

    Names that differ only in letter case or in how letters are composed count as the same: some disks take them so.
    """
    absolute = {path: Path(os.path.abspath(path)) for path in paths}
    longer: tuple[Callable[[Path], str], ...] = (
        lambda path: f"{path.parent.name}_{stem(path)}",
        lambda path: f"{path.parent.name}_{path.name.replace('.', '_')}",
        lambda path: "_".join(path.parts[1:]).replace(".", "_"),
    )
    names = {path: _safe(stem(path)) for path in paths}
    for name_of in longer:
        repeated = Counter(map(_folded, names.values()))
        for path, name in names.items():
            if repeated[_folded(name)] > 1:
                names[path] = _safe(name_of(absolute[path]))
    taken: set[str] = set()
    for path, name in names.items():
        number, unique = 1, name
        while _folded(unique) in taken:
            number += 1
            unique = f"{name}_{number}"
        taken.add(_folded(unique))
        names[path] = unique
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe(name: str) -> str:
    """Short enough for a file with our endings, and not hidden: what begins with a dot is the system's or our own."""
    return short_name(f"_{name}" if name.startswith(".") else name)
