"""Damaged and hostile files for every reader: `python tests/fuzzing.py KIND COUNT DATA PREPARED RUN WORK`.

One process reads all inputs of one kind, so that a crash, a hang or a gigabyte ends it alone. It prints one line of
JSON for each input that did not end well or in a HemotorchError; FOLDER/now tells which input it is at.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import re
import resource
import shutil
import signal
import sys
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import torch

from hemotorch import nets
from hemotorch.data.dataset import Dataset
from hemotorch.data.layouts import open_layout
from hemotorch.errors import HemotorchError
from hemotorch.inference.checkpoint import _digest, load_checkpoint
from hemotorch.inference.load import load_model
from hemotorch.io import dicom, png, read_mask, read_scan, slice_numbers, write_mask, write_scan
from hemotorch.io.dicom.masks import mask_names, mask_series
from hemotorch.io.dicom.write import write_series
from hemotorch.recipe import load_recipe
from hemotorch.run import BEST, Run
from hemotorch.scan import even_scan
from structures import structure_set

SECONDS, KILOBYTES = 20, 1_000_000  #: that one input may take, and above what the process had at its start
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (
    *("", "0", "-1", "1", "1.5", "1e999", "-1e-320", "NaN", "Infinity", "99999999999999999999", "null", "true", "[]"),
    *("{}", '""', '"', "'", ",", ";", "\t", "\n", "\r", "\0", "\ufeff", "=1+1", "²", "é", "\\u0000", "../..", "fold-0"),
    *("0-999999999999", "9" * 5000, "A" * 10_000, "[" * 100_000, '{"a":' * 20_000, "a." * 5000),
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 255, 10**30, 1e308, 1e-308, float("nan"), float("inf"), "", "x", "1", "../../x"),
    *("0-999999999999", [], {}, [[]], [None], [1, 2, 3], {"a": 1}, [float("nan")] * 3, "\0", "A" * 10_000, [1e9, -1e9]),
)


def damaged_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled, put in or left off; the start of a file more often than the rest."""
    data = bytearray(raw)

    def position() -> int:
        return rng.randrange(max(1, min(len(data), 600) if rng.random() < 0.6 else len(data)))

    for _ in range(rng.choice((1, 1, 2, 4))):
        start, length = position(), rng.choice((1, 2, 4, 8, 16, 100))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            del data[start : start + length]
        elif kind == 2:
            data[start:start] = rng.randbytes(length)
        elif kind == 3:
            data[start:start] = data[start : start + length] * rng.choice((1, 3))
        elif kind == 4:
            data[start : start + length] = rng.choice((b"\0", b"\xff")) * length
        elif kind == 5:
            size, order = rng.choice((2, 4, 8)), rng.choice(("little", "big"))
            data[start : start + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, order)  # type: ignore[arg-type]
        else:
            data[start : start + 1] = rng.randbytes(1)
    return bytes(data)


def damaged_text(raw: bytes, rng: random.Random) -> bytes:
    """A word or two replaced by what no writer writes; sometimes plain damage."""
    if rng.random() < 0.3:
        return damaged_bytes(raw, rng)
    text = raw.decode("utf-8")
    for _ in range(rng.choice((1, 1, 2, 3))):
        words = list(re.finditer(r"[\w.+-]+|\s+|[^\w\s]", text))
        if not words:
            break
        word = rng.choice(words)
        text = text[: word.start()] + rng.choice(WORDS) + text[word.end() :]
    return text.encode("utf-8", errors="surrogatepass")


def damaged_value(value: Any, rng: random.Random) -> Any:
    """One place in nested dictionaries and lists replaced, removed or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.05:
            return {rng.choice(("x", "", "0", "999")) if k == key else k: v for k, v in value.items()}
        return {k: damaged_value(v, rng) if k == key else v for k, v in value.items()}
    if isinstance(value, list) and value and rng.random() < 0.9:
        index = rng.randrange(len(value))
        if rng.random() < 0.1:
            return [*value[:index], *value[index + 1 :]]
        return [damaged_value(entry, rng) if i == index else entry for i, entry in enumerate(value)]
    if isinstance(value, torch.Tensor) and value.ndim and rng.random() < 0.7:
        return rng.choice((value[:0], value.double(), value.reshape(-1), value * float("nan"), torch.zeros(2, 2)))
    return rng.choice(VALUES)


def damaged_json(raw: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return damaged_text(raw, rng)
    return json.dumps(damaged_value(json.loads(raw), rng)).encode()


def damaged_lines(raw: bytes, rng: random.Random) -> bytes:
    """JSON, one value a line."""
    lines = raw.splitlines()
    index = rng.randrange(len(lines))
    lines[index] = damaged_json(lines[index], rng)
    return b"\n".join(lines) + b"\n"


def damaged_gzip(raw: bytes, rng: random.Random) -> bytes:
    if rng.random() < 0.3:
        return damaged_bytes(raw, rng)
    return gzip.compress(damaged_bytes(gzip.decompress(raw), rng), 1)


def damaged_png(raw: bytes, rng: random.Random) -> bytes:
    """A chunk damaged, its checksum right; sometimes plain damage."""
    if rng.random() < 0.3:
        return damaged_bytes(raw, rng)
    chunks, start = [], 8
    while start + 12 <= len(raw):
        length = int.from_bytes(raw[start : start + 4], "big")
        chunks.append((raw[start + 4 : start + 8], raw[start + 8 : start + 8 + length]))
        start += 12 + length
    index = rng.randrange(len(chunks))
    kind, data = chunks[index]
    chunks[index] = (kind, damaged_bytes(data or b"\0", rng))
    if rng.random() < 0.3:
        extra = rng.choice((b"tRNS", b"PLTE", b"gAMA", b"iCCP", b"zTXt", b"acTL", b"fcTL", b"IDAT", b"IHDR"))
        chunks.insert(rng.randrange(len(chunks)), (extra, rng.randbytes(rng.choice((0, 1, 13, 768)))))
    packed = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    ]
    return raw[:8] + b"".join(packed)


def damaged_zip(raw: bytes, rng: random.Random) -> bytes:
    """The structure of a checkpoint damaged, the archive's checksums right; sometimes plain damage."""
    if rng.random() < 0.3:
        return damaged_bytes(raw, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(raw)) as archive, zipfile.ZipFile(out, "w") as changed:
        victim = rng.choice(archive.namelist()) if rng.random() < 0.2 else "data.pkl"
        for name in archive.namelist():
            content = archive.read(name)
            changed.writestr(name, damaged_bytes(content, rng) if name.endswith(victim) else content)
    return out.getvalue()


def damaged_checkpoint(raw: bytes, rng: random.Random) -> bytes:
    """Values changed, the digest right: what somebody does who knows hemotorch."""
    values = torch.load(io.BytesIO(raw), weights_only=True)
    del values["digest"]
    values = {key: dict(value) if isinstance(value, dict) else value for key, value in values.items()}
    part = rng.choice(("options", "weights", "deployment", "deployment", None))
    values = {**values, part: damaged_value(values[part], rng)} if part else damaged_value(values, rng)
    out = io.BytesIO()
    digest = _digest(values)
    torch.save({**values, "digest": digest} if isinstance(values, dict) else values, out)
    return out.getvalue()


@dataclass(frozen=True)
class Kind:
    """A sort of file. make: writes a good one below a folder and says where; read: all that is done with it."""

    make: Callable[[Sources, Path], Path]
    read: Callable[[Path], Any]
    damage: Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Sources:
    """Good data to start from: a dataset, the same prepared, and a run on it."""

    data: Path
    prepared: Path
    run: Path


def write_volume(work: Path, name: str, mask: bool = False) -> Path:
    rng = np.random.default_rng(0)
    scan = even_scan(rng.integers(-1000, 1500, (4, 9, 8)).astype(np.int16), 0.5, 5.0)
    path = work / name
    if mask:
        write_mask(scan, (scan.hu > 900).astype(np.uint8), path)
    else:
        write_scan(scan, path)
    if name.startswith("2"):
        nib.save(nib.Nifti2Image.from_image(nib.load(path)), path)
    return path


def write_pair(work: Path) -> Path:
    """A NIfTI header beside its voxels."""
    image = nib.load(write_volume(work, "one.nii"))
    nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine, image.header), work / "a.hdr")
    return work / "a.hdr"


def write_nrrd(work: Path, header: str, pack: Callable[[bytes], bytes]) -> Path:
    """A volume with its header in one file, or with the header alone in a .nhdr."""
    hu = np.random.default_rng(0).integers(-1000, 1500, (4, 9, 8)).astype("<i2")
    fields = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 8 9 4\nendian: little\n"
    fields += f"space directions: (0.5,0,0) (0,0.5,0) (0,0,5)\nspace origin: (1,2,3)\n{header}"
    content = pack(hu.tobytes())
    if "data file" in header:
        (work / "a.raw").write_bytes(content)
        return copied_text(work, "a.nhdr", fields)
    (work / "a.nrrd").write_bytes(fields.encode() + b"\n" + content)
    return work / "a.nrrd"


def write_slice(work: Path, name: str, label: bool = False) -> Path:
    grey = np.random.default_rng(0).integers(0, 255, (16, 16)).astype(np.int16)
    if label:
        png.write_label(work / name, grey > 100)
    else:
        png.write_slice(work / name, grey, png.PngWindow())
    return work / name


def copied(source: Path, work: Path, file: str) -> Path:
    """A copy of a folder, of which one file, given by a pattern, is damaged."""
    shutil.copytree(source, work / "copy")
    return min((work / "copy").glob(file))


def written_folder(work: Path, name: str, content: str) -> Path:
    """A plain folder of one scan with a table or labels beside it."""
    for folder, mask in (("images", False), ("masks", True)):
        (work / folder).mkdir()
        write_volume(work / folder, "a.nii.gz", mask)
    (work / name).write_text(content)
    return work / name


def read_volume(path: Path) -> None:
    _tried(lambda: slice_numbers(path))
    scan = _tried(lambda: read_scan(path))
    _tried(lambda: read_mask(path, scan))
    if scan is not None:
        write_mask(scan, np.zeros(scan.shape, np.uint8), path.with_name("out.nii"))


def read_dataset(path: Path) -> None:
    """Opens the dataset around a file and asks it all it knows."""
    dataset = Dataset(next(folder for folder in path.parents if folder.name == "copy"))
    for name in dataset.splits:
        dataset.split(name)
    for case in dataset.cases[:3]:
        _tried(lambda case=case: dataset.scan(case).voxel_ml)
        _tried(lambda case=case: dataset.mask(case))
        _tried(lambda case=case: dataset.read(case, 0, 1))
        for ask in (dataset.volume_ml, dataset.types, dataset.digest, dataset.mask_digest):
            _tried(lambda case=case, ask=ask: ask(case))


def write_structure_set(work: Path) -> Path:
    """Contours of two regions on a series in DICOM, which lies beside them."""
    scan = even_scan(np.random.default_rng(0).integers(-1000, 1500, (6, 48, 48)).astype(np.int16), 4.0, 5.0)
    files = write_series(scan, work / "series")
    first = pydicom.dcmread(files[0], stop_before_pixels=True)
    circles = [("EDH", 9.0), ("brain", 14.0)]
    return structure_set(
        scan, work / "rs.dcm", circles, first.StudyInstanceUID, first.SeriesInstanceUID, first.PatientID
    )


def read_structure_set(path: Path) -> None:
    """Asks a file all that is asked of a mask in DICOM, also as a part of its study."""
    scan = read_scan(path.with_name("series"))
    for ask in (mask_names, mask_series, dicom.look_into):
        _tried(lambda ask=ask: ask(path))
    _tried(lambda: read_mask(path, scan))
    _tried(lambda: [case.read() for case in open_layout(path.parent, "auto").cases])


def read_run(path: Path) -> None:
    run = Run.open(path.parent)
    _tried(lambda: run.metrics)
    _tried(lambda: run.recipe)
    _tried(lambda: run.split)


def read_recipe(path: Path) -> None:
    found = load_recipe(path)
    nets.build(found.net.name, **found.net.options)


def read_checkpoint(path: Path) -> None:
    load_checkpoint(path)
    load_model(path, "cpu")


refusals: list[HemotorchError] = []  #: of the input that is read now


def _tried(call: Callable[[], Any]) -> Any:
    """What a call gives, None for an error that is explained."""
    try:
        return call()
    except HemotorchError as error:
        refusals.append(error)
        return None


LABELS = json.dumps({"0": "background", "1": "epidural", "2": "subdural"})
PATIENTS = "case,patient,site\na,7,north\nb,8,south\n"
KINDS = {
    "nii": Kind(lambda _, work: write_volume(work, "a.nii"), read_volume, damaged_bytes),
    "nii.gz": Kind(lambda _, work: write_volume(work, "a.nii.gz"), read_volume, damaged_gzip),
    "nifti-2": Kind(lambda _, work: write_volume(work, "2.nii"), read_volume, damaged_bytes),
    "mask": Kind(lambda _, work: write_volume(work, "m.nii.gz", mask=True), read_volume, damaged_gzip),
    "hdr": Kind(lambda _, work: write_pair(work), read_volume, damaged_bytes),
    "nrrd": Kind(lambda _, work: write_nrrd(work, "encoding: raw\n", bytes), read_volume, damaged_bytes),
    "nrrd-gzip": Kind(lambda _, work: write_nrrd(work, "encoding: gzip\n", gzip.compress), read_volume, damaged_bytes),
    "nrrd-bzip2": Kind(lambda _, work: write_nrrd(work, "encoding: bz2\n", bz2.compress), read_volume, damaged_bytes),
    "nhdr": Kind(
        lambda _, work: write_nrrd(work, "encoding: raw\ndata file: a.raw\n", bytes), read_volume, damaged_text
    ),
    "png": Kind(lambda _, work: write_slice(work, "a_001.png"), read_scan, damaged_png),
    "png-label": Kind(lambda _, work: write_slice(work, "a_001.png", label=True), read_mask, damaged_png),
    "rtstruct": Kind(lambda _, work: write_structure_set(work), read_structure_set, damaged_bytes),
    "window": Kind(
        lambda _, work: copied_text(work, "window.json", '{"level": 40, "width": 120, "pixel_mm": 0.5, "slice_mm": 5}'),
        lambda path: png.read_window(path.parent),
        damaged_json,
    ),
    "labels": Kind(
        lambda _, work: written_folder(work, "labels.json", LABELS),
        lambda path: open_layout(path.parent, "auto"),
        damaged_json,
    ),
    "patients": Kind(
        lambda _, work: written_folder(work, "patients.csv", PATIENTS),
        lambda path: open_layout(path.parent, "auto"),
        damaged_text,
    ),
    "diagnosis": Kind(
        lambda sources, work: copied(sources.data, work, "*[hH]emorrhage*.csv"),
        lambda path: open_layout(path.parent, "auto"),
        damaged_text,
    ),
    "demographics": Kind(
        lambda sources, work: copied(sources.data, work, "*emographics*.csv"),
        lambda path: open_layout(path.parent, "auto"),
        damaged_text,
    ),
    "manifest": Kind(lambda sources, work: copied(sources.prepared, work, "manifest.csv"), read_dataset, damaged_text),
    "splits": Kind(lambda sources, work: copied(sources.prepared, work, "splits.json"), read_dataset, damaged_json),
    "dataset": Kind(lambda sources, work: copied(sources.prepared, work, "dataset.json"), read_dataset, damaged_json),
    "record": Kind(
        lambda sources, work: copied(sources.prepared, work, "scans.zarr/0*/zarr.json"), read_dataset, damaged_json
    ),
    "shard": Kind(
        lambda sources, work: copied(sources.prepared, work, "scans.zarr/0*/hu/c/0/0/0"), read_dataset, damaged_bytes
    ),
    "shard-shape": Kind(
        lambda sources, work: copied(sources.prepared, work, "scans.zarr/0*/hu/zarr.json"), read_dataset, damaged_json
    ),
    "metrics": Kind(lambda sources, work: copied(sources.run, work, "metrics.jsonl"), read_run, damaged_lines),
    "run": Kind(lambda sources, work: copied(sources.run, work, "run.json"), read_run, damaged_json),
    "recipe": Kind(lambda sources, work: copied(sources.run, work, "recipe.toml"), read_recipe, damaged_text),
    "checkpoint": Kind(lambda sources, work: copied(sources.run, work, BEST), read_checkpoint, damaged_zip),
    "checkpoint-values": Kind(
        lambda sources, work: copied(sources.run, work, BEST), read_checkpoint, damaged_checkpoint
    ),
}


def copied_text(work: Path, name: str, content: str) -> Path:
    (work / name).write_text(content)
    return work / name


class TimeLimit(BaseException):
    """Raised in the reader after SECONDS, past anything that catches Exception."""


def out_of_time(*_: Any) -> None:
    raise TimeLimit


def peak_kilobytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_kind(name: str, count: int, sources: Sources, work: Path) -> int:
    """Reads `count` damaged files, printing what went wrong; returns how many were refused."""
    kind = KINDS[name]
    work.mkdir(parents=True, exist_ok=True)
    path = kind.make(sources, work)
    good = path.read_bytes()
    kind.read(path)  # a good file is read, or the harness is wrong
    refused, before = 0, peak_kilobytes()
    signal.signal(signal.SIGALRM, out_of_time)
    for number in range(count):
        raw = kind.damage(good, random.Random(f"{name} {number}"))
        path.write_bytes(raw)
        (work / "now").write_text(str(number))
        wrong = ""
        refusals.clear()
        signal.alarm(SECONDS)
        try:
            kind.read(path)
        except HemotorchError as error:
            refusals.append(error)
        except TimeLimit:
            wrong = f"takes more than {SECONDS} s"
        except BaseException:
            wrong = traceback.format_exc()
        finally:
            signal.alarm(0)
        if peak_kilobytes() - before > KILOBYTES:
            wrong += f"takes {peak_kilobytes() - before} kB"
            before = peak_kilobytes()
        refused += bool(refusals)
        if wrong:
            shutil.copy(path, work / f"wrong-{number}{path.suffix}")
            print(json.dumps({"kind": name, "number": number, "wrong": wrong}), flush=True)
    return refused


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    kind_name, many, *folders = sys.argv[1:]
    data, prepared, run, work_folder = map(Path, folders)
    torch.set_num_threads(1)
    print(json.dumps({"refused": run_kind(kind_name, int(many), Sources(data, prepared, run), work_folder)}))
