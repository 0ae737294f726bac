"""Makes the model in the box anew: phantoms, painted scans, training, export, measuring, card. Hours on two cores.

    python model/make.py [--data ../shared/data] [--out runs/model] [--recipe default] [--set KEY=VALUE]

`make model` runs it; `make model DATA=FOLDER` names the openly licensed scans. If it is stopped, the same command goes
on from where it was. A source of `model/sources.py` whose folder is missing is left out, and said.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from sources import SOURCES

ROOT = Path(__file__).resolve().parents[1]
PHANTOM_SEED, PAINT_SEED = "1013", "1013"
HEMOTORCH = (sys.executable, "-m", "hemotorch.cli")


def main() -> None:
    """Runs one stage after the other; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="openly licensed scans")
    parser.add_argument("--out", type=Path, default=Path("runs") / "model", metavar="DIR")
    parser.add_argument("--recipe", default="default", metavar="NAME|FILE")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe")
    parser.add_argument("--patients", metavar="N", help="phantoms (default: the preset's)")
    a = parser.parse_args()
    phantom = a.out / "phantom"
    patients = ["--patients", a.patients] if a.patients else []
    layout = ["--layout", "folder"]
    once(phantom, "phantom.json", "phantom", phantom, "--preset", "default", *layout, "--seed", PHANTOM_SEED, *patients)
    sources, left_out = [phantom], []
    for name, source in SOURCES.items():
        if not source.folder:
            continue
        folder = a.data / source.folder
        if not folder.is_dir():
            left_out.append(name)
            print(f"make: left out: {name}, there is no folder {folder}", flush=True)
            continue
        painted, paintings = a.out / name, ["--per-scan", str(source.per_scan), "--seed", PAINT_SEED]
        once(painted, "painted.json", "paint", folder, painted, *paintings, "--normal", "--any-anatomy")
        sources.append(painted)
    prepared, run = a.out / "prepared", a.out / "run"
    hemotorch("prepare", *sources, prepared, "--any-anatomy")
    finished = a.out / "run.trained"
    if not finished.exists():
        settings = [word for setting in a.set for word in ("--set", setting)]
        resume = ["--resume"] if (run / "run.json").exists() else ["--recipe", a.recipe, *settings]
        hemotorch("train", prepared, run, *resume)
        finished.touch()
    made_with = shlex.join(["make", "model"] if len(sys.argv) == 1 else ["python", "model/make.py", *sys.argv[1:]])
    pack = [ROOT / "model" / "pack.py", run, "--data", a.data, "--cache", a.out / "table_b", "--made-with", made_with]
    call(sys.executable, *pack)
    if left_out:
        print(f"make: trained without {', '.join(left_out)}", flush=True)


def once(folder: Path, last_file: str, *arguments: object) -> None:
    """Runs a command of hemotorch that makes a folder, unless its last file is there; a half-made one is made anew."""
    if (folder / last_file).exists():
        return
    if folder.exists():
        shutil.rmtree(folder)
    hemotorch(*arguments)


def hemotorch(*arguments: object) -> None:
    """Runs a command of hemotorch."""
    print("$ hemotorch", shlex.join(map(str, arguments)), flush=True)
    call(*HEMOTORCH, *arguments)


def call(*arguments: object) -> None:
    """Runs a program; ends this one if it fails."""
    status = subprocess.run(list(map(str, arguments)), check=False).returncode
    if status:
        sys.exit(f"make: stopped with status {status}; the same command goes on from there")


if __name__ == "__main__":
    main()
