"""A phantom dataset on disk, made by several processes, in any supported layout."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hemotorch.data import layouts
from hemotorch.errors import InputError, OptionError, nearest
from hemotorch.phantom.case import make_case
from hemotorch.phantom.presets import VERSION, Preset, preset
from hemotorch.scan import CaseInfo
from hemotorch.system.events import Task
from hemotorch.system.files import clear_parts, jsonable, output_folder, read_json, write_json
from hemotorch.system.machine import cores

INFO = "phantom.json"  #: written last: what the dataset was made from
BEGUN = ".phantom.json"  #: while it is being written: what from, so that the same command goes on after a kill


def write_phantom(
    out: Path | str,
    spec: str | Preset = "small",
    patients: int | None = None,
    size: int | None = None,
    seed: int = 0,
    layout: str = "ct-ich",
    projection: bool = False,
    workers: int | None = None,
) -> dict[str, Any]:
    """Writes a phantom dataset into an empty folder and returns what it says of itself (also in `phantom.json`).

    workers: processes, all cores by default; the files do not depend on it. Raises OptionError for an unknown preset
    or layout, InputError where the folder holds something, RunError where the disk fails.
    """
    chosen = preset(spec, patients, size)
    if layout not in layouts.LAYOUTS:
        raise OptionError(f"unknown layout '{layout}'", todo=nearest(layout, layouts.LAYOUTS))
    settings = {"phantom": VERSION, "preset": asdict(chosen), "seed": seed, "layout": layout, "projection": projection}
    root = _begun(Path(out), settings)
    jobs = [(root, chosen, index, seed, layout, projection) for index in range(chosen.patients)]
    count = min(workers or cores(), len(jobs))
    rows: list[tuple[CaseInfo, float, int]] = []
    with Task("phantom", len(jobs), "patient") as task:
        for row in _each(jobs, count):
            rows.append(row)
            task.advance()
    rows.sort(key=lambda row: row[0].name)
    layouts.write_tables(layout, root, [info for info, _, _ in rows])
    bleeding = [info for info, _, _ in rows if info.hemorrhage]
    summary = {
        "phantom": VERSION,
        "preset": chosen.name,
        "seed": seed,
        "layout": layout,
        "projection": projection,
        "cases": len(rows),
        "positive": len(bleeding),
        "slices": sum(slices for _, _, slices in rows),
        "positive_slices": sum(sum(map(bool, info.slice_types.values())) for info in bleeding),
        "size_px": chosen.size_px,
        "volume_ml": {info.name: round(ml, 2) for info, ml, _ in rows},
    }
    write_json(root / INFO, summary)
    (root / BEGUN).unlink()
    return summary


def _begun(out: Path, settings: dict[str, Any]) -> Path:
    """The output folder, new or left by the same command that was killed before it wrote `phantom.json`.

    Raises:
        InputError: if the folder holds anything else.
    """
    settings = jsonable(settings)
    marker = out / BEGUN
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


def _each(jobs: list[tuple[Any, ...]], count: int) -> Any:
    """Results in the order in which they come. Spawned, not forked: the caller may hold threads."""
    if count <= 1:
        yield from map(_one, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=spawn, initializer=_follow, initargs=(os.getpid(),)) as pool:
        futures = [pool.submit(_one, job) for job in jobs]
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


def _one(job: tuple[Path, Preset, int, int, str, bool]) -> tuple[CaseInfo, float, int]:
    """Makes and writes one case: what it is, its mL of bleeding, its slices."""
    root, chosen, index, seed, layout, projection = job
    case = make_case(chosen, index, seed, projection)
    layouts.write_case(layout, root, case.scan.name, case.scan, case.mask, case.info, case.inside)
    return case.info, case.scan.volume_ml(case.mask), len(case.mask)
