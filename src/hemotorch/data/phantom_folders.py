"""A phantom dataset on disk, made by several processes, in any supported layout."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hemotorch.data import layouts
from hemotorch.data.layouts import dicom
from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.io.dicom.faults import FAULTS
from hemotorch.phantom.case import make_case
from hemotorch.phantom.presets import VERSION, Preset, preset
from hemotorch.scan import CaseInfo
from hemotorch.system.events import ProgressTask
from hemotorch.system.files import clear_parts, jsonable, output_folder, read_json, write_json
from hemotorch.system.machine import cores

INFO = "phantom.json"  #: written last: what the dataset was made from
UNFINISHED = ".phantom.json"  #: while it is being written: what from, so that the same command goes on after a kill


@dataclass(frozen=True)
class _Job:
    """A case to be made and written; see `write_phantom`. index: of the patient."""

    root: Path
    preset: Preset
    index: int
    seed: int
    layout: str
    projection: bool
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Written:
    """A case that is written, its mL of bleeding, how many slices it has, and whether contrast agent was given."""

    info: CaseInfo
    volume_ml: float
    slices: int
    contrast: bool


def write_phantom(
    out: Path | str,
    spec: str | Preset = "small",
    patients: int | None = None,
    size: int | None = None,
    seed: int = 0,
    layout: str = "ct-ich",
    projection: bool = False,
    workers: int | None = None,
    shading_hu: float | None = None,
    offset_hu: float | None = None,
    faults: Sequence[str] = (),
    chances: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Writes a phantom dataset into an empty folder.

    Args:
        out: the folder.
        spec: a preset or its name.
        patients, size: how many, and rows and columns of a slice, if not the preset's.
        seed: another one gives other patients.
        layout: one of `layouts.LAYOUTS`.
        projection: simulate the scanner in full, which is slower.
        workers: processes, all cores by default; the files do not depend on it.
        shading_hu: largest amplitude of a smooth field over soft tissue, if not the preset's, which is 0.
        offset_hu: by how much soft tissue is brighter or darker at most, beyond the usual scanners; likewise.
        chances: of what looks like bleeding, names of `presets.Chances`, that are not to be the preset's.
        faults: what is wrong with the files of the layout `dicom`, names of `io.dicom.faults.FAULTS`.

    Returns:
        What the dataset says of itself, also in `phantom.json`.

    Raises:
        OptionError: for an unknown preset or layout.
        InputError: if the folder holds something.
        RunError: if the disk fails.
    """
    chosen = preset(spec, patients, size, shading_hu, offset_hu, chances)
    if layout not in layouts.LAYOUTS:
        raise OptionError(f"unknown layout '{layout}'", todo=nearest(layout, layouts.LAYOUTS))
    if faults and layout != dicom.NAME:
        raise OptionError("are about DICOM", "--fault", f"add --layout {dicom.NAME}")
    for fault in faults:
        if fault not in FAULTS:
            raise OptionError(f"unknown fault '{fault}'", "--fault", nearest(fault, FAULTS))
    settings = {"phantom": VERSION, "preset": asdict(chosen), "seed": seed, "layout": layout, "projection": projection}
    if faults:
        settings["faults"] = list(faults)
    root = _output_folder(Path(out), settings)
    jobs = [_Job(root, chosen, index, seed, layout, projection, tuple(faults)) for index in range(chosen.patients)]
    count = min(workers or cores(), len(jobs))
    cases: list[_Written] = []
    with ProgressTask("phantom", len(jobs), "patient") as task:
        for case in _write_cases(jobs, count):
            cases.append(case)
            task.advance()
    cases.sort(key=lambda case: case.info.name)
    layouts.write_tables(layout, root, [case.info for case in cases])
    bleeding = [case.info for case in cases if case.info.hemorrhage]
    summary = {
        "phantom": VERSION,
        "preset": chosen.name,
        "seed": seed,
        "layout": layout,
        "projection": projection,
        "shading_hu": chosen.shading_hu,
        "offset_hu": chosen.offset_hu,
        "cases": len(cases),
        "positive": len(bleeding),
        "slices": sum(case.slices for case in cases),
        "positive_slices": sum(map(_positive_slices, bleeding)),
        "size_px": chosen.size_px,
        "chances": asdict(chosen.chances),
        "contrast": [case.info.name for case in cases if case.contrast],
        **({"faults": list(faults)} if faults else {}),
        "volume_ml": {case.info.name: round(case.volume_ml, 2) for case in cases},
    }
    write_json(root / INFO, summary)
    (root / UNFINISHED).unlink()
    return summary


def _output_folder(out: Path, settings: dict[str, Any]) -> Path:
    """The output folder, new or left by the same command that was killed before it wrote `phantom.json`.

    Raises:
        InputError: if the folder holds anything else.
    """
    settings = jsonable(settings)
    marker = out / UNFINISHED
    if (out / INFO).exists() or not marker.is_file():
        root = output_folder(out)
    elif read_json(marker) != settings:
        raise InputError("holds an unfinished phantom of other settings", out, "remove it, or choose another folder")
    else:
        root = out
    for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
        clear_parts(folder)
    write_json(marker, settings)
    return root


def _positive_slices(info: CaseInfo) -> int:
    return sum(bool(types) for types in info.slice_types.values())


def _write_cases(jobs: list[_Job], count: int) -> Iterator[_Written]:
    """Makes and writes cases in `count` processes, and yields them in the order in which they are done."""
    if count <= 1:
        yield from map(_write_case, jobs)
        return
    # Spawned, not forked: the caller may hold threads.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_follow, initargs=(os.getpid(),)) as pool:
        futures = [pool.submit(_write_case, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _follow(parent: int) -> None:
    """Ends this worker within seconds of its parent, which may be killed without a word."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _write_case(job: _Job) -> _Written:
    case = make_case(job.preset, job.index, job.seed, job.projection)
    if job.faults:
        dicom.write_faulty(job.root, case.scan.name, case.scan, case.mask, case.info, job.faults)
    else:
        layouts.write_case(job.layout, job.root, case.scan.name, case.scan, case.mask, case.info, case.inside)
    return _Written(case.info, case.scan.volume_ml(case.mask), len(case.mask), bool(case.scan.contrast))
