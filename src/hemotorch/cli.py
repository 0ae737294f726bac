"""The command line: one subcommand a verb. Everything heavy is imported inside the verb that needs it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from hemotorch import NOTICE, __version__
from hemotorch.bench import commands as bench
from hemotorch.cluster import commands as cluster
from hemotorch.errors import HemotorchError, OptionError, one_line
from hemotorch.system.limits import allow_voxels, voxels
from hemotorch.system.threads import MOST, process_environment

_AFTER = {
    "prepare": "; the same command goes on from there",
    "train": "; with --resume it goes on from its last checkpoint",
    "demo": "; the same command goes on from there",
    "cluster torchrun": "; with --resume it goes on from its last checkpoint",
    "cluster ray": "; with --resume it goes on from its last checkpoint",
    "cluster predict": "; the same command goes on from there",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit status: 0 done, 1 an explained error, 130 interrupted."""
    _open_streams()
    arguments = _parser().parse_args(argv)
    # Before anything heavy is imported: OpenMP reads its variables once, when torch loads it.
    with process_environment(getattr(arguments, "threads", None)), _noticed_interrupts() as interrupts:
        status = _run(arguments, interrupts)
    if "WORLD_SIZE" in os.environ:
        from hemotorch.system.ranks import leave

        return leave(status)
    return status


def _open_streams() -> None:
    """Gives this process the streams that it was started without, and lets the others print any file name.

    Without them the next file that is opened would become stderr, and warnings would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _noticed_interrupts() -> Iterator[list[int]]:
    """Ctrl-C raises KeyboardInterrupt as ever, and leaves a note: a library may make another error of it."""
    noticed: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        noticed.append(number)
        raise KeyboardInterrupt

    main_thread = threading.current_thread() is threading.main_thread()
    ours = main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield noticed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _run(arguments: argparse.Namespace, interrupts: list[int]) -> int:
    allow_voxels(getattr(arguments, "max_voxels", None))
    try:
        return int(arguments.run(arguments) or 0)
    except HemotorchError as error:
        print(f"hemotorch {arguments.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return _stopped(arguments)
    except BrokenPipeError:
        # The reader (head, less) closed; Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        print(f"hemotorch {arguments.command}: not enough memory ({error or 'no more said'})", file=sys.stderr)
        return 1
    except Exception as error:
        from hemotorch.system.files import disk_error

        if interrupts:
            return _stopped(arguments)

        known = disk_error(error, getattr(error, "filename", None) or "the output")
        if known is None:
            raise
        print(f"hemotorch {arguments.command}: {known}", file=sys.stderr)
        return 1


def _stopped(arguments: argparse.Namespace) -> int:
    after = _AFTER.get(arguments.command, "")
    if "--resume" in after and not (Path(arguments.run_folder) / "last.pt").exists():
        after = "; no checkpoint was written yet, with --resume it starts from the beginning"
    print(f"\nhemotorch {arguments.command}: stopped{after}", file=sys.stderr)
    return 130


def _phantom(a: argparse.Namespace) -> int:
    from hemotorch.data.phantom_folders import write_phantom

    summary = write_phantom(
        a.out,
        a.preset,
        patients=a.patients,
        size=a.size,
        seed=a.seed,
        layout=a.layout,
        projection=a.projection,
        workers=a.workers,
    )
    _show(a, summary, f"{summary['cases']} scans, {summary['positive']} with bleeding, in {a.out}")
    return 0


def _prepare(a: argparse.Namespace) -> int:
    from hemotorch.data.prepare import prepare

    if (a.level is None) != (a.width is None):
        raise OptionError("--level and --width go together", todo="give both, in HU")
    if a.window and a.level is not None:
        raise OptionError("--window and --level are two ways to say one thing", todo="give one of them")
    if (a.window or a.only_positive or a.level is not None) and not a.png:
        raise OptionError("--window, --level, --width and --only-positive are about PNGs", todo="add --png")
    window: Any = (a.window or "brain") if a.level is None else (a.level, a.width)
    summary = prepare(
        a.src,
        a.out,
        layout=a.layout,
        png=a.png,
        window=window,
        only_positive=a.only_positive,
        workers=a.workers,
        seed=a.seed,
        any_anatomy=a.any_anatomy,
    )
    _show(a, summary.to_dict(), "\n".join(summary.lines()))
    return 1 if summary.failed or summary.passed_over else 0


def _train(a: argparse.Namespace) -> int:
    from hemotorch.recipe import recipe_from_args
    from hemotorch.run import epoch_line
    from hemotorch.training.loop import train

    recipe = recipe_from_args(a.recipe, a.set, a.fold, a.resume)

    first = os.environ.get("RANK", "0") == "0"  # of several ranks one writes and prints
    board = _tensorboard(a.run_folder) if a.tensorboard and first else None

    def report(row: dict[str, Any]) -> None:
        if board is not None:
            values = {**row, **{f"val/{name}": value for name, value in row.get("val", {}).items()}}
            for name, value in values.items():
                if isinstance(value, (int, float)) and name != "epoch":
                    board.add_scalar(name, value, row["epoch"])
            board.flush()
        if not a.json:
            print(epoch_line(row), flush=True)

    say = None if a.json else partial(print, flush=True)
    run = train(a.data, a.run_folder, recipe, device=a.device, resume=a.resume, report=report, say=say)
    if first:
        _show(a, {"run": str(run.root), "epochs": run.metrics}, f"trained: {run.root}")
    return 0


def _recipe(a: argparse.Namespace) -> int:
    from hemotorch.recipe import load_recipe
    from hemotorch.recipe.show import commented_toml, recipe_keys, recipe_list

    if a.name is None:
        recipes = recipe_list()
        lines = [f"{entry['name']:<17} {entry['description']}" for entry in recipes]
        _show(a, recipes, "\n".join(lines))
        return 0
    recipe = load_recipe(a.name)
    _show(a, {"recipe": recipe.name, "keys": recipe_keys(recipe)}, commented_toml(recipe).rstrip())
    return 0


def _tensorboard(root: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        todo = "install it with `pip install 'hemotorch[tensorboard]'`, or read RUN/metrics.jsonl"
        raise OptionError("tensorboard is not installed", "--tensorboard", todo) from error
    return SummaryWriter(str(Path(root).with_name(Path(root).name + "-tensorboard")))


def _evaluate(a: argparse.Namespace) -> int:
    from hemotorch.report.run_report import evaluate_run

    scores = evaluate_run(a.run_folder, a.out, data=a.data, part=a.split, device=a.device, overwrite=a.overwrite)
    _show(a, scores.to_json(), "\n".join([*scores.lines(), f"report: {Path(a.out) / 'report.html'}", NOTICE]))
    return 0


def _predict(a: argparse.Namespace) -> int:
    from hemotorch.inference.outputs import predict_files

    results, failed = [], 0
    for path, result in predict_files(
        a.run_folder, a.scan, a.out, device=a.device, any_anatomy=a.any_anatomy, overwrite=a.overwrite
    ):
        if isinstance(result, HemotorchError):
            failed += 1
            print(f"hemotorch predict: {result}", file=sys.stderr, flush=True)
            results.append({"scan": [str(path)], "error": str(result)})
            continue
        results.append(result)
        if not a.json:
            slices = len(result["slices_with_bleeding"])
            volume = _number(result["volume_ml"]["total"], 1)
            seconds = sum(result["seconds"].values())
            print(one_line(f"{path}   {volume} mL on {slices} slices   {seconds:.1f} s"), flush=True)
            for warning in result["warnings"]:
                print(f"    {one_line(warning)}", flush=True)
    where = f"masks, volumes and pictures: {a.out}\n" if failed < len(results) else ""
    _show(a, {"predictions": results, "notice": NOTICE}, f"{where}{NOTICE}")
    return 1 if failed or not results else 0


def _demo(a: argparse.Namespace) -> int:
    from hemotorch.demo import demo

    result = demo(a.out, say=(lambda text: None) if a.json else (lambda text: print(text, flush=True)))
    _show(a, result, "\n".join([*result["lines"], f"Open {result['report']}", NOTICE]))
    return 0


def _number(value: float | None, digits: int = 3) -> str:
    return "unknown" if value is None or value != value else f"{value:.{digits}f}"


def _show(a: argparse.Namespace, values: Any, text: str) -> None:
    from hemotorch.system.files import jsonable

    # Line by line: a text has lines of its own, and file names in it may hold anything else.
    shown = json.dumps(jsonable(values), indent=2) if a.json else "\n".join(map(one_line, text.split("\n")))
    print(shown, flush=True)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a command."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` has an example\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="hemotorch",
        description="Networks that outline bleeding inside the skull on head CT. " + NOTICE,
        epilog="example: hemotorch demo --out demo     (`hemotorch COMMAND --help` has one for each command)",
    )
    parser.add_argument("--version", action="version", version=f"hemotorch {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = partial(_command, commands)

    p = command("phantom", _phantom, "Make a synthetic dataset of head CTs.", "phantom ct --preset small")
    p.add_argument("out", metavar="OUT", help="new folder")
    p.add_argument("--preset", default="small", metavar="NAME", help="ct-ich, small or demo (default: small)")
    p.add_argument("--patients", type=_count, metavar="N", help="how many (default: the preset's)")
    p.add_argument("--size", type=_pixels, metavar="N", help="rows and columns of a slice")
    p.add_argument("--seed", type=_seed, default=0, metavar="N", help="another seed, other patients (default: 0)")
    p.add_argument("--layout", default="ct-ich", metavar="NAME", help="ct-ich, folder or png (default: ct-ich)")
    p.add_argument("--projection", action="store_true", help="simulate the scanner in full: slower")
    _workers(p)

    p = command("prepare", _prepare, "Turn a folder of head CTs into a dataset to train on.", "prepare ct prepared")
    p.add_argument("src", metavar="SRC", help="folder with scans and masks")
    p.add_argument("out", metavar="OUT", help="prepared dataset; the same command again does only what changed")
    p.add_argument("--layout", default="auto", metavar="NAME", help="auto, ct-ich, folder or png (default: auto)")
    p.add_argument("--png", action="store_true", help="also write 8-bit PNG slices to OUT/png")
    p.add_argument("--window", metavar="NAME", help="of the PNGs (default: brain, 40/120)")
    p.add_argument("--level", type=float, metavar="HU", help="of the PNGs, with --width, instead of --window")
    p.add_argument("--width", type=float, metavar="HU", help="of the PNGs")
    p.add_argument("--only-positive", action="store_true", help="PNGs of slices with bleeding only")
    p.add_argument("--seed", type=_seed, default=0, metavar="N", help="of the splits (default: 0)")
    p.add_argument("--any-anatomy", action="store_true", help="also take what does not look like a head")
    _workers(p)
    _max_voxels(p)

    _learning(command)
    p = command("recipe", _recipe, "Print a recipe, each key with its unit and help.", "recipe fast > mine.toml")
    p.add_argument("name", nargs="?", metavar="NAME|FILE", help="a recipe's name or TOML file (default: list all)")
    text = "Measure how fast it trains and predicts here, and why."
    bench.add(command("bench", None, text, "bench train --quick"), _threads, _show)
    cluster.add(commands, _command, _training, _threads, _show)
    p = command("demo", _demo, "Phantom, prepare, train, evaluate and predict, small, in minutes.", "demo --out demo")
    p.add_argument("--out", default="demo", metavar="DIR", help="folder for all of it (default: demo)")
    _threads(p)
    return parser


def _command(commands: Any, name: str, run: Any, text: str, example: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, epilog=f"example: hemotorch {example}"
    )
    made.set_defaults(run=run)
    made.add_argument("--json", action="store_true", help="print the result as JSON")
    return made


def _training(p: argparse.ArgumentParser) -> None:
    """What `train` takes, however many processes do it."""
    p.add_argument("data", metavar="DATA", help="prepared dataset")
    p.add_argument("run_folder", metavar="RUN", help="new folder for the run")
    p.add_argument("--recipe", metavar="NAME|FILE", help="a recipe's name or TOML file (default: fast)")
    p.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one value; may be repeated")
    p.add_argument("--fold", type=int, metavar="K", help="cross-validation: fold K is test, K+1 validation")
    p.add_argument("--resume", action="store_true", help="go on with RUN if it was started, with its own recipe")
    _device(p)


def _learning(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Train, evaluate and predict."""
    p = command("train", _train, "Train a network.", "train prepared run --recipe fast --set train.epochs=20")
    _training(p)
    p.add_argument("--tensorboard", action="store_true", help="also log to RUN-tensorboard, for TensorBoard")

    p = command(
        "evaluate", _evaluate, "Measure a trained network on scans it has not seen.", "evaluate run --out report"
    )
    p.add_argument("run_folder", metavar="RUN", help="run folder of `hemotorch train`")
    p.add_argument("--data", metavar="DATA", help="prepared dataset (default: the one it was trained on)")
    p.add_argument("--split", default="test", choices=("train", "val", "test", "all"), help="part (default: test)")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for scores.json, tables and report.html")
    _overwrite(p)
    _device(p)

    p = command("predict", _predict, "Outline bleeding in scans.", "predict run scan.nii.gz --out predictions")
    p.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint file")
    p.add_argument("scan", nargs="+", metavar="SCAN", help="NIfTI files, or folders of them")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for masks, JSON and pictures")
    p.add_argument("--any-anatomy", action="store_true", help="also predict what does not look like a head")
    _max_voxels(p)
    _overwrite(p)
    _device(p)


def _workers(p: argparse.ArgumentParser) -> None:
    p.add_argument("--workers", type=_count, metavar="N", help="parallel workers (default: all cores)")


def _max_voxels(p: argparse.ArgumentParser) -> None:
    text = "of the largest scan that is read (default: $HEMOTORCH_MAX_VOXELS, else 268435456)"
    p.add_argument("--max-voxels", type=voxels, metavar="N", help=text)


def _overwrite(p: argparse.ArgumentParser) -> None:
    p.add_argument("--overwrite", action="store_true", help="replace results that are there already")


def _device(p: argparse.ArgumentParser) -> None:
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    _threads(p)


def _threads(p: argparse.ArgumentParser) -> None:
    text = "that each process computes with on a CPU (default: the recipe's, OMP_NUM_THREADS, or all cores)"
    p.add_argument("--threads", type=_thread_count, metavar="N", help=text)


def _whole(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.lstrip("-").isdigit() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from {least:,} to {most:,}, not {text!r}")
    return int(text)


def _count(text: str) -> int:
    return _whole(text, 1, 100_000)


def _thread_count(text: str) -> int:
    return _whole(text, 1, MOST)


def _pixels(text: str) -> int:
    return _whole(text, 32, 2048)


def _seed(text: str) -> int:
    return _whole(text, 0, 2**31 - 1)


if __name__ == "__main__":
    sys.exit(main())
