"""A trained run -> the model in the box: export, measure, write the card, and put both into the package.

    python model/pack.py RUN [--data ../shared/data] [--cache runs/table_b] [--figures FILE] [--made-with TEXT]

Writes `src/hemotorch/inference/box/default.onnx` and `default.json`, and `docs/model.md` from them. Nothing of the card
is written by hand: counts come from the run's own split, settings from its recipe, figures from `benchmarks/table_b.py`
(or FILE, what that program wrote of the very same network). `make model` runs it at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

import table_b  # noqa: E402
from sources import SOURCES  # noqa: E402

from hemotorch import __version__  # noqa: E402
from hemotorch.data.manifest import read_manifest  # noqa: E402
from hemotorch.errors import InputError  # noqa: E402
from hemotorch.inference import box  # noqa: E402
from hemotorch.inference.load import load_model  # noqa: E402
from hemotorch.inference.onnx_export import export_onnx  # noqa: E402
from hemotorch.recipe import Recipe, known_recipes, load_recipe  # noqa: E402
from hemotorch.run import Run  # noqa: E402
from hemotorch.system import records  # noqa: E402
from hemotorch.system.files import file_digest  # noqa: E402

BOX = ROOT / "src" / "hemotorch" / "inference" / "box"
PAGE = ROOT / "docs" / "model.md"
MOST_MB = 10.0
TITLE = "Outlines five types of bleeding in head CT, and the space inside the skull"
LIMITS = (
    "not validated on patients: real bleeding has never been measured with it",
    "bleeding was synthetic in all of its training and in all figures above",
    "figures of the GE head and of what was painted into it say little about other heads of that scanner",
    "other scanners, children, operated heads and contrast medium can deceive it: look at the doubts of each result",
    "types are told apart less well than bleeding is found",
    "bleeding in pieces smaller than the recipe's predict.min_ml (0.8 mL) is dropped",
)


def main() -> None:
    """Packs a run; the exit status says whether it could be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=table_b.CACHE, metavar="DIR")
    parser.add_argument("--figures", type=Path, metavar="FILE", help="measured already, by table_b.py --json")
    parser.add_argument("--made-with", default="make model", metavar="TEXT", help="the command that makes it anew")
    help_text = "prefix of scans' names, and which source that is, such as pge2=ge; may be repeated"
    parser.add_argument("--source", action="append", default=[], metavar="PREFIX=SOURCE", help=help_text)
    a = parser.parse_args()
    aliases = dict(pair.split("=", 1) for pair in a.source)
    file = a.run / "default.onnx"
    made = export_onnx(a.run, file, scans=checks(a.data), overwrite=True)
    for comparison in made.comparisons:
        print(comparison.text)
    figures = a.figures
    if figures is None:
        figures = a.run / "figures.json"
        measured = []
        for figure in table_b.measure(load_model(file), a.data, a.cache):
            print(figure.row(), flush=True)
            measured.append(asdict(figure))
        figures.write_text(json.dumps({"sha256": file_digest(file), "figures": measured}, indent=1), encoding="utf-8")
    card = make_card(a.run, file, figures, a.made_with, aliases)
    put(card, file, BOX)
    PAGE.write_text(page(card), encoding="utf-8")
    print("\n".join(card.lines()))


def checks(data: Path) -> list[Path]:
    """Real scans to compare the exported file on, if they are there."""
    return [path for path in (data / "head-ct-nifti" / "head.nii.gz",) if path.exists()]


def make_card(run: Path, file: Path, figures: Path, made_with: str, aliases: dict[str, str]) -> box.Card:
    """The card of a run's ONNX file.

    Raises:
        InputError: if the figures are of another network, a scan is of no known source, or the file is too large.
    """
    sha256, megabytes = file_digest(file), file.stat().st_size / 1e6
    if megabytes > MOST_MB:
        raise InputError(f"has {megabytes:.1f} MB, more than {MOST_MB:.0f}", file, "train a smaller network")
    values = json.loads(figures.read_text(encoding="utf-8"))
    run_digest = file_digest(run / "best.pt")
    if values["sha256"] not in (sha256, run_digest):
        raise InputError("are figures of another network", figures, "measure again, without --figures")
    opened = Run.open(run)
    data = training_data(opened, aliases)
    sources = {row.source for row in data}
    shown = {part for source in SOURCES.values() if source.text in sources for part in source.shows}
    measured, limits = [], list(LIMITS)
    for entry in values["figures"]:
        figure = table_b.Figure(**{**entry, "ci95": entry["ci95"] and tuple(entry["ci95"])})
        seen = any(figure.what.startswith(part) for part in shown)
        command = f"python benchmarks/table_b.py --only {figure.part}"
        measured.append(box.Measured(what=figure.what, value=figure.text(), command=command, seen=seen))
        if not figure.met:
            limits.append(f"misses what was asked of it: {figure.what} {figure.text()}, {figure.asked()}")
    return box.Card(
        name=box.DEFAULT,
        title=TITLE,
        sha256=sha256,
        megabytes=round(megabytes, 3),
        made_with=made_with,
        recipe=recipe_text(opened.recipe),
        hemotorch=__version__,
        answers=load_model(file).deployment.task.channels,
        data=tuple(data),
        measured=tuple(measured),
        limits=tuple(limits),
    )


def training_data(run: Run, aliases: dict[str, str]) -> list[box.TrainingData]:
    """How many scans and patients of each source a run was trained on."""
    folder = Path(run.record.data)
    patients = {row.case: row.patient for row in read_manifest(folder / "manifest.csv")}
    trained = run.record.split.train
    by_source: dict[str, list[str]] = {}
    for case in trained:
        name = source_of(case, aliases)
        if name not in SOURCES:
            todo = "say with --source PREFIX=SOURCE what it is; sources: " + ", ".join(SOURCES)
            raise InputError(f"was trained on {case}, which is of no known source", run.root, todo)
        by_source.setdefault(name, []).append(case)
    data = []
    for name, source in SOURCES.items():
        cases = by_source.get(name, [])
        people = len({patients[case] for case in cases})
        row = box.TrainingData(source.text, source.licence, len(cases), people, source.synthetic)
        data += [row] if cases else []
    return data


def source_of(case: str, aliases: dict[str, str]) -> str:
    """Which source a scan is of, by the beginning of its name; "" if that is unknown."""
    prefix = max((name for name in {*SOURCES, *aliases} if case.startswith(f"{name}-")), key=len, default="")
    return aliases.get(prefix, prefix)


def recipe_text(recipe: Recipe) -> str:
    """A recipe's name, and in what it differs from the one that comes with hemotorch."""
    if recipe.name not in known_recipes():
        return recipe.name
    known = asdict(load_recipe(recipe.name))
    changes = []
    for section, values in asdict(recipe).items():
        if not isinstance(values, dict):
            continue
        for key, value in values.items():
            if known[section][key] != value:
                changes.append(f"{section}.{key}={json.dumps(value)}")
    return f"{recipe.name} with {' '.join(changes)}" if changes else recipe.name


def put(card: box.Card, file: Path, folder: Path) -> None:
    """Writes a model and its card into the box."""
    shutil.copyfile(file, folder / f"{card.name}.onnx")
    records.write(folder / f"{card.name}.json", card)


def page(card: box.Card) -> str:
    """docs/model.md"""
    return (
        "# The model in the box\n\nMade by `model/pack.py` from the model's card; changes here are lost. "
        "`hemotorch models default` prints the same. `make model` makes the model anew: hours on two cores.\n\n"
        f"{card.markdown()}\n"
    )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"pack: {error}")
