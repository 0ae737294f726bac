"""hemotorch beside its peers: the same patients, the same cores, each with the settings its documentation recommends.

    python benchmarks/peers.py setup DIR                       # an environment a peer, below DIR; minutes, 5 GB
    python benchmarks/peers.py run DATA DIR --out RESULTS      # each contender alone, 40 minutes a peer
    python benchmarks/peers.py table RESULTS                   # the table, and RESULTS/peers.png and .svg

DATA is a prepared dataset (`hemotorch phantom small --preset small && hemotorch prepare small prepared`). `run` writes
RESULTS/NAME.json after each contender and passes over those that have one, so that it may be interrupted between two.
Who takes part, and how each is run otherwise than by its defaults, is in benchmarks/peers/contenders.py. Needs Linux.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from peers.contenders import ALIKE, CONTENDERS, Contender, paper  # noqa: E402

#: What is installed after its requirements, without its own: MedicalTorch's torchvision cannot be imported.
WITHOUT_DEPENDENCIES = {"medicaltorch": "medicaltorch==0.2"}
NOT_TRAINING = 3.0  #: a contender may take this many times its minutes, outlining included ...
WHOLE_S = 4 * 3600.0  #: ... and one that ends by itself this long


def setup(folder: Path, chosen: list[Contender]) -> None:
    """Makes the environments; one that is whole is left alone."""
    constraints = HERE.parent / "constraints.txt"
    for name in sorted({contender.environment for contender in chosen if not contender.ours}):
        home = folder / name
        if (home / "ready").exists():
            print(f"{name}: ready")
            continue
        print(f"{name}: installing", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "-c", str(constraints), "-r", str(HERE / "peers" / f"{name}.txt")], check=True)
        if name in WITHOUT_DEPENDENCIES:
            subprocess.run([*pip, "--no-deps", WITHOUT_DEPENDENCIES[name]], check=True)
        (home / "ready").touch()


def run(a: argparse.Namespace, chosen: list[Contender]) -> int:
    """Runs them one after another; how many failed."""
    from peers.export import export

    from hemotorch.data.dataset import Dataset

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the contender that runs is ended too
    cores = sorted(os.sched_getaffinity(0))[: a.threads]
    os.sched_setaffinity(0, cores)
    a.out.mkdir(parents=True, exist_ok=True)
    dataset = Dataset(a.data)
    parts = export(dataset, a.out / "data")
    failed = 0
    for contender in chosen:
        result = a.out / f"{contender.name}.json"
        if result.exists() and not a.again:
            print(f"{contender.name}: has run ({result})", flush=True)
            continue
        print(f"{contender.name}: running", flush=True)
        measured = _run_one(a, contender, dataset, parts["test"], len(cores))
        if measured is None:
            failed += 1
            continue
        partial = result.with_suffix(".part")
        partial.write_text(json.dumps(measured, indent=1) + "\n")
        partial.replace(result)
        last = measured["rows"][-1]
        print(f"{contender.name}: Dice {last['dice']:.3f} after {last['seconds']:.0f} s", flush=True)
    return failed


def _run_one(
    a: argparse.Namespace, contender: Contender, dataset: Any, test: dict[str, str], cores: int
) -> dict[str, Any] | None:
    from peers.measure import run_alone
    from peers.score import score

    from hemotorch.system.device import environment

    work = (a.out / "work" / contender.name).resolve()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    python = (a.folder / contender.environment / "bin" / "python").absolute()
    options = contender.options
    # Peers do not see hemotorch; it sees what this process does.
    seen = [str(HERE)]
    if contender.ours:
        python = Path(sys.executable)
        options = {**options, "data": str(a.data.resolve()), "test": test}
        seen += filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if not python.exists():
        print(f"{contender.name}: no environment at {python}; run `setup` first", file=sys.stderr)
        return None
    threads = {"OMP_NUM_THREADS": str(cores), "OMP_WAIT_POLICY": "PASSIVE"}
    variables = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(seen)}
    job = {
        **{"data": str((a.out / "data").resolve()), "work": str(work), "minutes": a.minutes, "every_s": 60 * a.every},
        **{"cores": cores, "seed": 0, "options": options, "began": time.time()},
    }
    (work / "job.json").write_text(json.dumps(job, indent=1))
    limit_s = WHOLE_S if contender.whole else 60 * a.minutes * NOT_TRAINING + 1800
    command = [str(python), "-m", f"peers.{contender.module}", str(work / "job.json")]
    status, peak_mb = run_alone(command, variables, work / "log.txt", limit_s)
    if status or not (work / "about.json").exists():
        tail = (work / "log.txt").read_text(errors="replace").splitlines()[-12:]
        print(f"{contender.name}: failed with status {status}\n    " + "\n    ".join(tail), file=sys.stderr, flush=True)
        return None
    rows = [json.loads(line) for line in (work / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        row.update(score(dataset, test, work / row.pop("file")))
    return {
        **{"name": contender.name, "title": contender.title, "source": contender.source},
        **{"deviations": list(contender.deviations), "settings": contender.options},
        **{"minutes": None if contender.whole else a.minutes, "peak_mb": round(peak_mb)},
        **{"cores": cores, "test_scans": len(test), "machine": environment()},
        **{"notes": [], **json.loads((work / "about.json").read_text())},
        "rows": [_finite(row) for row in rows],
    }


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """NaN, which JSON has not, as null."""
    from hemotorch.system.files import jsonable

    return jsonable(row)


def show(folder: Path) -> None:
    """Prints the table and all that belongs to it, and draws the picture."""
    from peers.chart import draw
    from peers.table import NOTES, table, targets, wins

    order = [contender.name for contender in CONTENDERS]
    results = [
        json.loads((folder / f"{name}.json").read_text()) for name in order if (folder / f"{name}.json").exists()
    ]
    if not results:
        raise SystemExit(f"{folder} holds no results; make them with `run`")
    print(table(results))
    print("\nBold: better than `fast` at its own length. Dice: mean over held-out scans with bleeding.")
    print(" ".join(NOTES))
    print("\nTargets:\n" + "\n".join(f"- {line}" for line in targets(results)))
    print("\nWhere `fast` is beaten:\n" + "\n".join(f"- {line}" for line in wins(results) or ["nowhere"]))
    print("\nAlike for all:\n" + "\n".join(f"- {line}" for line in ALIKE))
    print("\nOtherwise than by its defaults:")
    for contender in results:
        versions = ", ".join(f"{name} {number}" for name, number in contender["versions"].items())
        print(f"\n{contender['title']} ({contender['source']}; {versions}):")
        print("\n".join(f"- {line}" for line in [*contender["deviations"], *contender["notes"]] or ["nothing"]))
    for ending in ("png", "svg"):
        draw(results, folder / f"peers.{ending}")
        print(f"\n{folder / f'peers.{ending}'}", end="")
    print()


def main() -> int:
    """One of setup, run and table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    names = [contender.name for contender in CONTENDERS]
    p = commands.add_parser("setup", help="make an environment a peer")
    p.add_argument("folder", type=Path, metavar="DIR")
    p.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(names)}")
    p = commands.add_parser("run", help="run the contenders one after another")
    p.add_argument("data", type=Path, metavar="DATA", help="prepared dataset")
    p.add_argument("folder", type=Path, metavar="DIR", help="the environments of `setup`")
    p.add_argument("--out", type=Path, required=True, metavar="RESULTS")
    p.add_argument("--only", metavar="NAME,...", help=f"of: {', '.join(names)}")
    p.add_argument("--minutes", type=float, default=40, help="of training, for each that does not end by itself")
    p.add_argument(
        "--every", type=float, default=4, metavar="MINUTES", help="of training between two points; a quarter at first"
    )
    p.add_argument("--threads", type=int, metavar="N", help="cores for each (default: all)")
    p.add_argument("--paper-epochs", type=int, default=30, metavar="N")
    p.add_argument("--again", action="store_true", help="also those that have run")
    p = commands.add_parser("table", help="print the table and draw the picture")
    p.add_argument("results", type=Path, metavar="RESULTS")
    a = parser.parse_args()
    if a.command == "table":
        show(a.results)
        return 0
    wanted = a.only.split(",") if a.only else names
    if unknown := set(wanted) - set(names):
        parser.error(f"no contender {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [contender for contender in CONTENDERS if contender.name in wanted]
    if a.command == "setup":
        setup(a.folder, chosen)
        return 0
    return run(a, [paper(a.paper_epochs) if contender.name == "paper" else contender for contender in chosen])


if __name__ == "__main__":
    sys.exit(main())
