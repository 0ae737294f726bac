"""How commands are added to the command line, and the options that several of them share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NoReturn

from hemotorch.system.threads import MOST

Command = Callable[[argparse.Namespace], int]


class Resuming(Enum):
    """How a command goes on after it was stopped."""

    NOT = auto()
    SAME_COMMAND = auto()
    OPTION = auto()  #: --resume


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` has an example\n")


def add_command(
    group: Any, name: str, run: Command | None, text: str, example: str, resuming: Resuming = Resuming.NOT
) -> argparse.ArgumentParser:
    """Adds a command to a group of commands.

    Args:
        group: what `add_subparsers` returned.
        run: called with the parsed arguments; None if the command has commands of its own.
        text: what it does, one sentence.
        example: a command line without `hemotorch`.
    """
    parser: argparse.ArgumentParser = group.add_parser(
        name, help=text, description=text, epilog=f"example: hemotorch {example}"
    )
    parser.set_defaults(run=run, resuming=resuming)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def add_training(p: argparse.ArgumentParser) -> None:
    """What `train` takes, however many processes do it."""
    p.add_argument("data", metavar="DATA", help="prepared dataset")
    p.add_argument("run_folder", metavar="RUN", help="new folder for the run")
    p.add_argument("--recipe", metavar="NAME|FILE", help="a recipe's name or TOML file (default: fast)")
    p.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one value; may be repeated")
    p.add_argument("--fold", type=int, metavar="K", help="cross-validation: fold K is test, K+1 validation")
    p.add_argument("--resume", action="store_true", help="go on with RUN if it was started, with its own recipe")
    add_device(p)


def add_device(p: argparse.ArgumentParser) -> None:
    """--device and --threads."""
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    add_threads(p)


def add_threads(p: argparse.ArgumentParser) -> None:
    """--threads."""
    text = "that each process computes with on a CPU (default: the recipe's, OMP_NUM_THREADS, or all cores)"
    p.add_argument("--threads", type=_thread_count, metavar="N", help=text)


def add_max_voxels(p: argparse.ArgumentParser) -> None:
    """--max-voxels."""
    text = "of the largest scan that is read (default: $HEMOTORCH_MAX_VOXELS, else 268435456)"
    p.add_argument("--max-voxels", type=_voxel_count, metavar="N", help=text)


def add_workers(p: argparse.ArgumentParser) -> None:
    """--workers."""
    p.add_argument("--workers", type=count, metavar="N", help="parallel workers (default: all cores)")


def add_series(p: argparse.ArgumentParser) -> None:
    """--series."""
    text = "of DICOM, the series to read, instead of the best one of each study (its SeriesInstanceUID)"
    p.add_argument("--series", metavar="UID", help=text)


def add_patients(p: argparse.ArgumentParser) -> None:
    """--patients."""
    text = "for follow-up of scans outside DICOM: CSV with the columns case, patient and date (2024-01-31 14:30)"
    p.add_argument("--patients", metavar="FILE", help=text)


def add_overwrite(p: argparse.ArgumentParser) -> None:
    """--overwrite."""
    p.add_argument("--overwrite", action="store_true", help="replace results that are there already")


def whole_number(text: str, least: int, most: int) -> int:
    """The number. Raises argparse.ArgumentTypeError if the text is none, or out of bounds."""
    if not text.isascii() or not text.lstrip("-").isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least:,} to {most:,}, not {text!r}")
    return int(text)


def count(text: str) -> int:
    """Of things of which there is at least one."""
    return whole_number(text, 1, 100_000)


def _thread_count(text: str) -> int:
    return whole_number(text, 1, MOST)


def _voxel_count(text: str) -> int:
    return whole_number(text, 1, 2**53)


def pixels(text: str) -> int:
    """The side of a slice."""
    return whole_number(text, 32, 2048)


def named_share(text: str) -> tuple[str, float]:
    """A name and a number, NAME=SHARE."""
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=SHARE, such as contrast=0.2") from None


def seed(text: str) -> int:
    """Of random numbers."""
    return whole_number(text, 0, 2**31 - 1)
