"""The parser of the whole command line."""

from __future__ import annotations

import argparse
from typing import Any

from hemotorch import NOTICE, __version__
from hemotorch.bench import commands as bench
from hemotorch.cli import commands
from hemotorch.cli.cluster import add_cluster
from hemotorch.cli.options import (
    Parser,
    Resuming,
    add_command,
    add_device,
    add_max_voxels,
    add_overwrite,
    add_patients,
    add_series,
    add_threads,
    add_training,
    add_workers,
    count,
    named_share,
    pixels,
    seed,
)
from hemotorch.cli.output import show
from hemotorch.cli.serve import add_serve


def make_parser() -> argparse.ArgumentParser:
    """The whole command line. What is parsed has `command`, `run`, `json` and `resuming` besides the options."""
    parser = Parser(
        prog="hemotorch",
        description="Networks that outline bleeding inside the skull on head CT. " + NOTICE,
        epilog="example: hemotorch demo --out demo     (`hemotorch COMMAND --help` has one for each command)",
    )
    parser.add_argument("--version", action="version", version=f"hemotorch {__version__}")
    group = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _phantom(group)
    _paint(group)
    _prepare(group)
    _train(group)
    _evaluate(group)
    _predict(group)
    _export(group)
    _inspect(group)
    add_serve(group)
    _models(group)
    _convert(group)
    _recipe(group)
    text = "Measure how fast it trains and predicts here, and why."
    bench.add(add_command(group, "bench", None, text, "bench train --quick"), add_threads, show)
    add_cluster(group)
    text = "Say what this machine has and lacks, with the command that mends each."
    add_command(group, "doctor", commands.doctor, text, "doctor")
    _demo(group)
    return parser


def _phantom(group: Any) -> None:
    text = "Make a synthetic dataset of head CTs."
    p = add_command(group, "phantom", commands.phantom, text, "phantom ct --preset small")
    p.add_argument("out", metavar="OUT", help="new folder")
    p.add_argument("--preset", default="small", metavar="NAME", help="default, ct-ich, small or demo (default: small)")
    p.add_argument("--patients", type=count, metavar="N", help="how many (default: the preset's)")
    p.add_argument("--size", type=pixels, metavar="N", help="rows and columns of a slice")
    p.add_argument("--seed", type=seed, default=0, metavar="N", help="another seed, other patients (default: 0)")
    p.add_argument(
        "--layout",
        default="ct-ich",
        metavar="NAME",
        help="layout of the files written, see docs/data.md (default: ct-ich)",
    )
    text = "what is wrong with the files of --layout dicom, by name, see docs/dicom.md; may be repeated"
    p.add_argument("--fault", action="append", default=[], metavar="NAME", help=text)
    p.add_argument("--projection", action="store_true", help="simulate the scanner in full: slower")
    text = "shade soft tissue by a smooth field of up to so many HU, as some scanners do (default: 0)"
    p.add_argument("--shading", type=float, metavar="HU", help=text)
    text = "make soft tissue brighter or darker by up to so many HU more than usual scanners (default: 0)"
    p.add_argument("--offset", type=float, metavar="HU", help=text)
    text = "how many patients have one of the look-alikes of docs/phantom.md, from 0 to 1; may be repeated"
    p.add_argument("--chance", type=named_share, action="append", default=[], metavar="NAME=SHARE", help=text)
    add_workers(p)


def _paint(group: Any) -> None:
    text = "Paint bleeding into scans without bleeding: training data from your own scanner."
    p = add_command(group, "paint", commands.paint, text, "paint normal_scans painted --per-scan 4")
    p.add_argument("src", metavar="SRC", help="folder of scans without bleeding; no masks are needed")
    p.add_argument("out", metavar="OUT", help="new folder, to be prepared")
    p.add_argument("--per-scan", type=count, default=4, metavar="N", help="paintings of each scan (default: 4)")
    p.add_argument("--seed", type=seed, default=0, metavar="N", help="another seed, other bleeding (default: 0)")
    p.add_argument(
        "--layout", default="auto", metavar="NAME", help="auto, or a layout by name, see docs/data.md (default: auto)"
    )
    p.add_argument(
        "--normal", action="store_true", help="the scans are known to be normal: paint those too that look otherwise"
    )
    p.add_argument("--any-anatomy", action="store_true", help="also paint what does not look like a head")
    add_workers(p)
    add_max_voxels(p)


def _prepare(group: Any) -> None:
    text = "Turn a folder of head CTs into a dataset to train on."
    p = add_command(group, "prepare", commands.prepare, text, "prepare ct prepared", Resuming.SAME_COMMAND)
    text = "folder with scans and masks; several become one dataset"
    p.add_argument("src", metavar="SRC", nargs="+", help=text)
    p.add_argument("out", metavar="OUT", help="prepared dataset; the same command again does only what changed")
    p.add_argument(
        "--layout", default="auto", metavar="NAME", help="auto, or a layout by name, see docs/data.md (default: auto)"
    )
    p.add_argument("--png", action="store_true", help="also write 8-bit PNG slices to OUT/png")
    p.add_argument("--window", metavar="NAME", help="of the PNGs (default: brain, 40/120)")
    p.add_argument("--level", type=float, metavar="HU", help="of the PNGs, with --width, instead of --window")
    p.add_argument("--width", type=float, metavar="HU", help="of the PNGs")
    p.add_argument("--only-positive", action="store_true", help="PNGs of slices with bleeding only")
    p.add_argument("--seed", type=seed, default=0, metavar="N", help="of the splits (default: 0)")
    p.add_argument("--any-anatomy", action="store_true", help="also take what does not look like a head")
    text = "of DICOM, a series to read instead of the best one of its study (its SeriesInstanceUID); may be repeated"
    p.add_argument("--series", action="append", default=[], metavar="UID", help=text)
    add_workers(p)
    add_max_voxels(p)


def _train(group: Any) -> None:
    example = "train prepared run --recipe fast --set train.epochs=20"
    p = add_command(group, "train", commands.train, "Train a network.", example, Resuming.OPTION)
    add_training(p)
    p.add_argument("--tensorboard", action="store_true", help="also log to RUN-tensorboard, for TensorBoard")


def _evaluate(group: Any) -> None:
    text = "Measure a trained network on scans it has not seen."
    p = add_command(group, "evaluate", commands.evaluate, text, "evaluate run --out report")
    p.add_argument("run_folder", metavar="RUN", help="run folder of `hemotorch train`, an ONNX file, or default")
    p.add_argument("--data", metavar="DATA", help="prepared dataset (default: the one that the run was trained on)")
    p.add_argument("--split", default="test", choices=("train", "val", "test", "all"), help="part (default: test)")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for scores.json, tables and report.html")
    add_overwrite(p)
    add_device(p)


def _predict(group: Any) -> None:
    text = "Outline bleeding in scans."
    p = add_command(group, "predict", commands.predict, text, "predict CD_FOLDER --out results")
    text = (
        "files of scans, folders of them, DICOM (a file, a folder, a zip, a DICOMDIR); models before them are taken as "
        "with --model: run folders, checkpoints (.pt), ONNX files"
    )
    p.add_argument("path", nargs="+", metavar="SCAN", help=text)
    text = "run folder, checkpoint or ONNX file in place of the model in the box; several are averaged"
    p.add_argument("--model", action="append", default=[], metavar="MODEL", help=text)
    p.add_argument("--out", required=True, metavar="DIR", help="folder for masks, JSON and pictures")
    add_series(p)
    p.add_argument("--any-anatomy", action="store_true", help="also predict what does not look like a head")
    text = "call studies in DICOM after their folders and hide no name, id or birth date of patients"
    p.add_argument("--show-patient", action="store_true", help=text)
    add_patients(p)
    p.add_argument("--no-dicom", action="store_true", help="of DICOM, write no DICOM (NAME_seg, _sr, _sc)")
    add_max_voxels(p)
    add_overwrite(p)
    add_device(p)


def _export(group: Any) -> None:
    text = "Write a run's network as a file that predicts without torch, and compare the two."
    p = add_command(group, "export", commands.export, text, "export run --to onnx")
    p.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint file")
    p.add_argument("--to", default="onnx", choices=("onnx",), help="the format (default: onnx)")
    p.add_argument("--out", metavar="FILE", help="the file (default: best.onnx in RUN, beside best.pt)")
    text = "also compare on this scan, beside a phantom; may be repeated"
    p.add_argument("--check", action="append", default=[], metavar="SCAN", help=text)
    add_overwrite(p)
    add_threads(p)


def _inspect(group: Any) -> None:
    text = "Say what scans are in files and folders, which series of DICOM would be read, and why."
    p = add_command(group, "inspect", commands.inspect, text, "inspect CD_FOLDER")
    p.add_argument("path", nargs="+", metavar="PATH", help="a file, a folder, a zip, a DICOMDIR")
    p.add_argument("--headers-only", action="store_true", help="do not look at pixels: faster, says less")
    p.add_argument("--show-patient", action="store_true", help="also print the names and ids of patients")
    add_series(p)
    add_max_voxels(p)


def _models(group: Any) -> None:
    text = "List the models that come with hemotorch, or print the card of one."
    p = add_command(group, "models", commands.models, text, "models default")
    p.add_argument(
        "name", nargs="?", metavar="NAME", help="print its card: what it was trained on, its figures, limits"
    )


def _convert(group: Any) -> None:
    text = "Write a scan as NIfTI: the series of a study, or any scan at another distance between slices."
    p = add_command(group, "convert", commands.convert, text, "convert STUDY_FOLDER head.nii.gz --resample 5")
    p.add_argument("scan", metavar="SCAN", help="a file of a scan, or DICOM (a file, a folder, a zip, a DICOMDIR)")
    p.add_argument("out", metavar="OUT", help="the file, .nii or .nii.gz")
    text = "make slices evenly so far apart, and take a tilt out, by linear interpolation (default: as acquired)"
    p.add_argument("--resample", type=float, metavar="MM", help=text)
    add_series(p)
    add_overwrite(p)
    add_max_voxels(p)


def _recipe(group: Any) -> None:
    text = "Print a recipe, each key with its unit and help."
    p = add_command(group, "recipe", commands.recipe, text, "recipe fast > mine.toml")
    p.add_argument("name", nargs="?", metavar="NAME|FILE", help="a recipe's name or TOML file (default: list all)")


def _demo(group: Any) -> None:
    text = "Phantom, prepare, train, evaluate and predict, small, in minutes."
    p = add_command(group, "demo", commands.demo, text, "demo --out demo", Resuming.SAME_COMMAND)
    p.add_argument("--out", default="demo", metavar="DIR", help="folder for all of it (default: demo)")
    add_threads(p)
