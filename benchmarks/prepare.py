"""How fast `hemotorch prepare --png` is, beside the loop that one would write: nibabel, NumPy, Pillow, one process.

    python benchmarks/prepare.py [SRC] [--repeats 5] [--json FILE] [--formats SCAN.nii.gz]

SRC: a folder in the CT-ICH layout; without it, a phantom of 8 patients is made. All ways write the same PNG pixels,
which is checked; they take turns, so that a noisy machine hits all alike, and the median of each is reported. `prepare`
writes the Zarr dataset, manifest, splits and hashes as well, the loop does not. --formats compares Zarr codecs, and the
zarr package with hemotorch.data.shards, on one scan.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from hemotorch.data.prepare import prepare
from hemotorch.data.shards import open_shard, write_shard
from hemotorch.io import read_scan
from hemotorch.io.png import LEVEL

LOW, WIDTH = -20, 120  # HU, the brain window
PILLOW_DEFAULT = 6


def loop(src: Path, out: Path, level: int) -> None:
    """The plain way: one process, a slice at a time. Integers are read as stored, which is faster than get_fdata()."""
    for folder in ("image", "label"):
        (out / "png" / folder).mkdir(parents=True)
    for path in sorted((src / "ct_scans").glob("*.nii*")):
        name = path.name.split(".")[0]
        scan = np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj)
        mask = np.asarray(nib.as_closest_canonical(nib.load(src / "masks" / path.name)).dataobj)
        for k in range(scan.shape[2]):
            hu = scan[::-1, ::-1, k].T.astype(np.float32)
            grey = np.rint(np.clip((hu - LOW) / WIDTH, 0, 1) * 255).astype(np.uint8)
            label = np.where(mask[::-1, ::-1, k].T > 0, 255, 0).astype(np.uint8)
            for folder, values in (("image", grey), ("label", label)):
                Image.fromarray(values).save(out / "png" / folder / f"{name}_{k + 1:03d}.png", compress_level=level)


def ours(src: Path, out: Path, png: bool) -> None:
    """`hemotorch prepare`."""
    summary = prepare(src, out, layout="ct-ich", png=png)
    if summary.failed:
        sys.exit("\n".join(summary.failed.values()))


def same_pixels(folder: Path, other: Path) -> int:
    """How many PNGs both folders hold; ends the program where any differs."""
    names = [sorted(path.relative_to(root) for path in root.rglob("*.png")) for root in (folder, other)]
    if names[0] != names[1]:
        sys.exit(f"not the same files: {len(names[0])} and {len(names[1])}")
    for name in names[0]:
        if not np.array_equal(np.asarray(Image.open(folder / name)), np.asarray(Image.open(other / name))):
            sys.exit(f"{name} differs")
    return len(names[0])


def megabytes(folder: Path) -> float:
    """Size of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def compare(src: Path, repeats: int) -> dict:
    """Times every way in turn, checks that pixels are the same, and returns the figures."""
    ways: dict[str, Callable[[Path, Path], None]] = {
        f"loop, PNG level {PILLOW_DEFAULT} (Pillow's default)": partial(loop, level=PILLOW_DEFAULT),
        f"loop, PNG level {LEVEL}": partial(loop, level=LEVEL),
        f"hemotorch prepare --png, PNG level {LEVEL}": partial(ours, png=True),
        "hemotorch prepare, Zarr only": partial(ours, png=False),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    sizes: dict[str, tuple[float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(repeats + 1):  # the first round warms the disk's cache
            # A new folder each time, since ext4 is slow to create files where many were just deleted.
            outs = {way: Path(folder) / f"{turn}-{number}" for number, way in enumerate(ways)}
            for way, run in ways.items():
                start = time.perf_counter()
                run(src, outs[way])
                seconds[way].append(time.perf_counter() - start)
        first, *others = (outs[way] / "png" for way in list(ways)[:3])
        slices = {same_pixels(first, other) for other in others}.pop() // 2
        for way, out in outs.items():
            sizes[way] = megabytes(out / "png"), megabytes(out / "scans.zarr")
    base = statistics.median(seconds[next(iter(ways))][1:])
    rows = [
        {
            "way": way,
            "slices_per_second": slices / statistics.median(times[1:]),
            "slowest": slices / max(times[1:]),
            "fastest": slices / min(times[1:]),
            "against_loop": base / statistics.median(times[1:]),
            "png_mb": sizes[way][0],
            "zarr_mb": sizes[way][1],
        }
        for way, times in seconds.items()
    ]
    return {"slices": slices, "repeats": repeats, "rows": rows}


def formats(path: Path, repeats: int) -> list[dict]:
    """Milliseconds a slice to write and read one scan, and its size: hemotorch.data.shards, and the zarr package."""
    import zarr
    from zarr.codecs import BloscCodec, ZstdCodec

    hu = read_scan(path).hu
    shards = {"shape": hu.shape, "chunks": (1, *hu.shape[1:]), "shards": hu.shape, "dtype": "int16", "fill_value": 0}

    def with_zarr(codec: object) -> tuple[Callable[[Path], object], Callable[[Path], Callable[[int], object]]]:
        def write(folder: Path) -> None:
            zarr.create_array(folder, compressors=codec, **shards)[:] = hu

        return write, lambda folder: zarr.open_array(folder, mode="r").__getitem__

    def reader(folder: Path) -> Callable[[int], object]:
        shard = open_shard(folder)
        return lambda index: shard.read(index, index + 1)

    ways = {"hemotorch.data.shards (blosc lz4 9, shuffle)": (partial(write_shard, values=hu), reader)}
    for name, level in (("lz4", 9), ("lz4", 1), ("zstd", 1), ("zstd", 3), ("zstd", 5)):
        ways[f"zarr, blosc {name} {level}, shuffle"] = with_zarr(
            BloscCodec(cname=name, clevel=level, shuffle="shuffle", typesize=2)
        )
    ways["zarr, zstd 1"] = with_zarr(ZstdCodec(level=1))
    rows = []
    for way, (write, open_reader) in ways.items():
        writing, reading = [], []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
                targets = [Path(folder) / str(i) for i in range(4)]
                start = time.perf_counter()
                list(pool.map(write, targets))
                writing.append((time.perf_counter() - start) / len(targets) / len(hu))
                read = open_reader(targets[0])
                start = time.perf_counter()
                list(pool.map(read, range(len(hu))))
                reading.append((time.perf_counter() - start) / len(hu))
                size = megabytes(targets[0])
        rows.append({"way": way, "write_ms": min(writing) * 1e3, "read_ms": min(reading) * 1e3, "mb": size})
    return rows


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--formats", type=Path, metavar="SCAN", help="compare Zarr codecs on this scan instead")
    a = parser.parse_args()
    if a.formats:
        print(f"{'two threads, ms a slice':<42} {'write':>7} {'read':>7} {'MB':>7}")
        for row in formats(a.formats, a.repeats):
            print(f"{row['way']:<42} {row['write_ms']:7.2f} {row['read_ms']:7.2f} {row['mb']:7.2f}")
        return
    with tempfile.TemporaryDirectory() as folder:
        src = a.src
        if src is None:
            from hemotorch.data.phantom_folders import write_phantom

            src = Path(folder) / "phantom"
            write_phantom(src, "ct-ich", patients=8)
        result = compare(src, a.repeats)
    result["machine"] = (
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"
    )
    print(f"{result['slices']} slices, median of {a.repeats} interleaved runs, {result['machine']}")
    print(f"{'':<46} {'slices/s':>9} {'slowest':>8} {'fastest':>8} {'times':>6} {'PNG MB':>7} {'Zarr MB':>8}")
    for row in result["rows"]:
        figures = (
            f"{row['slices_per_second']:9.0f} {row['slowest']:8.0f} {row['fastest']:8.0f} {row['against_loop']:6.2f}"
        )
        print(f"{row['way']:<46} {figures} {row['png_mb']:7.1f} {row['zarr_mb']:8.1f}")
    if a.json:
        a.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
