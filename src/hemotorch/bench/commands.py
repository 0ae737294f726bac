"""The parser of `hemotorch bench`; what a command needs is imported when it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hemotorch.bench.records import Bench

Parser = argparse.ArgumentParser
Show = Callable[[argparse.Namespace, Any, str], None]


def add(parser: Parser, threads: Callable[[Parser], None], show: Show) -> None:
    """Adds train, predict, mlp and compare. threads: adds --threads; show: prints a result, as JSON or as text."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=type(parser))

    def measuring(p: Parser) -> None:
        _measuring(p)
        threads(p)

    def verb(name: str, run: Callable[..., int], text: str, example: str) -> Parser:
        made = verbs.add_parser(name, help=text, description=text, epilog=f"example: hemotorch bench {example}")
        made.set_defaults(run=lambda a: run(a, show))
        made.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print the result as JSON")
        return made

    p = verb("train", _train, "Measure a training on all that this machine has, and say what limits it.",
             "train --quick --out bench")  # fmt: skip
    p.add_argument("--data", metavar="DATA", type=Path, help="prepared dataset (default: a phantom, made for it)")
    p.add_argument("--recipe", default="paper", metavar="NAME|FILE", help="what is trained (default: paper)")
    p.add_argument("--set", action="append", default=[], metavar="A.B=C", help="change one value of the recipe")
    p.add_argument("--device", default="auto", metavar="LIST", help="cpu, cuda or cpu,cuda (default: all there are)")
    p.add_argument("--sweep", nargs="+", default=[], metavar="NAME=VALUES",
                   help="also vary batch, threads, workers or ranks, as batch=1..32 threads=1,2")  # fmt: skip
    p.add_argument("--price-per-hour", type=_price, metavar="N", help="of the machine: adds the cost of a training")
    measuring(p)

    p = verb("predict", _predict, "Measure how long a user waits for predictions.", "predict run scan.nii.gz")
    p.add_argument("run_folder", metavar="RUN", help="run folder, checkpoint, ONNX file, or default")
    p.add_argument("scan", nargs="*", metavar="SCAN", help="NIfTI files (default: a phantom of 512x512x32)")
    p.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or cuda:N (default: auto)")
    measuring(p)

    p = verb("mlp", _mlp, "Compare SGD, momentum and Adam on small networks, in steps and in seconds.", "mlp --quick")
    p.add_argument("--data", metavar="DATA", type=Path, help="prepared dataset (default: a phantom, made for it)")
    p.add_argument("--net", default="mlp", choices=("mlp", "unet"), help="trained on it (default: mlp)")
    p.add_argument("--device", default="auto", metavar="LIST", help="cpu, cuda or cpu,cuda (default: all there are)")
    measuring(p)

    p = verb("compare", _compare, "Compare two results: two machines, or two versions.", "compare A.json B.json")
    p.add_argument("a", metavar="A.json", help="bench.json, or the folder it is in")
    p.add_argument("b", metavar="B.json", help="the other one")


def _measuring(p: Parser) -> None:
    p.add_argument("--quick", action="store_true", help="smaller and shorter: minutes on two cores")
    p.add_argument("--rounds", type=_rounds, default=3, metavar="N", help="how often each is measured (default: 3)")
    p.add_argument("--out", default="bench", metavar="DIR", help="for bench.json, chart and page (default: bench)")
    p.add_argument("--overwrite", action="store_true", help="replace results that are there already")


def _train(a: argparse.Namespace, show: Show) -> int:
    from hemotorch.bench.train import bench_train

    options = {"sweep": a.sweep, "price_per_hour": a.price_per_hour, **_options(a)}
    bench = _written(a, show, lambda: bench_train(a.data, a.recipe, a.set, **options))
    return 0 if any(row.measured and not row.config.reference for row in bench.rows) else 1


def _predict(a: argparse.Namespace, show: Show) -> int:
    from hemotorch.bench.predict import bench_predict

    _written(a, show, lambda: bench_predict(a.run_folder, a.scan, **_options(a)))
    return 0


def _mlp(a: argparse.Namespace, show: Show) -> int:
    from hemotorch.bench.mlp import bench_mlp

    bench = _written(a, show, lambda: bench_mlp(a.data, a.net, **_options(a)))
    return 0 if bench.curves else 1


def _written(a: argparse.Namespace, show: Show, measure: Callable[[], Bench]) -> Bench:
    """Measures, and writes and shows what it came to."""
    from hemotorch.system.files import output_folder

    out = output_folder(a.out, may_exist=a.overwrite)
    bench = measure()
    # Not before: their weight would count as the memory of each child.
    from hemotorch.bench.bench_page import write_bench
    from hemotorch.bench.tables import bench_lines

    page = write_bench(bench, out)
    show(a, bench.to_json(), "\n".join([*bench_lines(bench), f"page: {page}"]))
    return bench


def _compare(a: argparse.Namespace, show: Show) -> int:
    from hemotorch.bench.compare import compare
    from hemotorch.bench.records import read_bench

    comparison = compare(read_bench(a.a), read_bench(a.b))
    show(a, comparison.to_json(), "\n".join(comparison.lines()))
    return 0


def _options(a: argparse.Namespace) -> dict[str, Any]:
    """What every bench has."""
    return {"device": a.device, "rounds": a.rounds, "quick": a.quick}


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to 100, not {text!r}")
    return int(text)


def _price(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"must be a number that is not negative, not {text!r}")
    return value
