"""The models in the box: predicting without naming one, their cards, and the way from a run into the box."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import hemotorch
import tiny
from hemotorch.cli import main
from hemotorch.cli.commands import models_and_scans
from hemotorch.errors import InputError, OptionError
from hemotorch.inference import box
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.io import write_scan
from hemotorch.system.files import file_digest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "model"), str(ROOT / "benchmarks")]

import pack  # noqa: E402
import table_b  # noqa: E402


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(tiny_run, tmp_path_factory.mktemp("box") / "tiny.onnx").path


@pytest.fixture(scope="module")
def card(exported: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> box.Card:
    """As `model/pack.py` makes it of a run, with two figures that were measured before."""
    figures = [
        table_b.Figure("heads", "GE head, no bleeding: found", 0.4, "mL", 1.0, 0.0, most=True),
        table_b.Figure("phantoms", "phantoms: Dice per scan", 0.6, "", 0.75, 0.85, ci95=(0.5, 0.7)),
    ]
    file = tmp_path_factory.mktemp("figures") / "figures.json"
    values = {"sha256": file_digest(exported), "figures": [asdict(figure) for figure in figures]}
    file.write_text(json.dumps(values), encoding="utf-8")
    names = {str(name) + "-" for name in range(49, 59)}
    with pytest.MonkeyPatch.context() as patch:
        # The cases of the tiny dataset have no prefix of a source.
        patch.setattr(pack, "source_of", lambda case, aliases: "phantom" if f"{int(case)}-" in names else "")
        return pack.make_card(tiny_run, exported, file, "make model", {})


@pytest.fixture
def filled(exported: Path, card: box.Card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A box that holds the tiny network."""
    folder = tmp_path / "box"
    folder.mkdir()
    pack.put(card, exported, folder)
    _use(folder, monkeypatch)
    return folder


def _use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "_folder", lambda: folder)
    box.model_file.cache_clear()


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_scan(tiny.head(77)[0], tmp_path / "a.nii.gz")
    return tmp_path / "a.nii.gz"


def test_predicting_takes_the_model_in_the_box_and_says_so(
    filled: Path, exported: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(scan), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert "model: the model in the box, default" in said.out + said.err
    record = json.loads((tmp_path / "out" / "a.json").read_text(encoding="utf-8"))
    expected = hemotorch.predict(exported, scan)
    assert record["volume_ml"] == pytest.approx(expected.volume_ml) and expected.volume_ml["total"] > 0
    assert main(["predict", str(scan), "--model", str(exported), "--out", str(tmp_path / "own")]) == 0
    said = capsys.readouterr()
    assert f"model: {exported}" in said.out + said.err
    for way in (["default", str(scan)], [str(scan), "--model", "default"]):
        assert main(["predict", *way, "--out", str(tmp_path / way[0].replace("/", "-")[-9:])]) == 0


def test_from_python_the_only_argument_is_the_scan(filled: Path, exported: Path, scan: Path) -> None:
    expected = hemotorch.predict(exported, scan).volume_ml
    read = hemotorch.read_scan(scan)
    ways = (
        hemotorch.predict(scan),
        hemotorch.predict(read),
        hemotorch.predict(scan=str(scan)),
        hemotorch.predict(None, read),
        hemotorch.predict("default", scan),
        hemotorch.load_model().predict(read),
    )
    assert all(way.volume_ml == expected for way in ways)
    for nothing in ((), (hemotorch.load_model(),), (read, read)):
        with pytest.raises(OptionError, match="no scan is named"):
            hemotorch.predict(*nothing)


def test_a_damaged_exchanged_or_missing_file_is_named(
    filled: Path, card: box.Card, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = filled / "default.onnx"
    content = file.read_bytes()
    assert box.check().good and card.sha256 in box.check().line
    for damage in (content[:-1], content[:-1] + bytes([content[-1] ^ 1]), None):
        file.unlink() if damage is None else file.write_bytes(damage)
        box.model_file.cache_clear()
        with pytest.raises(InputError, match="install hemotorch again"):
            hemotorch.load_model()
        assert main(["predict", str(scan), "--out", str(tmp_path / "none")]) == 1
        assert str(file) in capsys.readouterr().err
        check = box.check()
        assert not check.good and check.core and str(file) in check.line
    (filled / "default.json").write_text("{}", encoding="utf-8")
    assert main(["models"]) == 1 and "default.json" in capsys.readouterr().err


def test_an_empty_box_says_how_to_fill_it(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    _use(tmp_path / "empty", monkeypatch)
    assert main(["predict", str(scan), "--out", str(tmp_path / "out")]) == 1
    assert "make model" in capsys.readouterr().err
    assert main(["models"]) == 0 and "make model" in capsys.readouterr().out
    check = box.check()
    assert not check.good and not check.core and "make model" in check.line


def test_models_are_listed_and_cards_printed(filled: Path, card: box.Card, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("default ") and card.sha256 in line
    assert main(["models", "default"]) == 0
    printed = capsys.readouterr().out
    for text in (card.sha256, "GE head, no bleeding: found: 0.4 mL", "not validated on patients", hemotorch.NOTICE):
        assert text in printed
    assert main(["models", "default", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == card.sha256
    assert main(["models", "defualt"]) == 1 and "default" in capsys.readouterr().err
    assert box.card() == card


def test_a_card_comes_from_the_run_and_what_was_measured(card: box.Card, exported: Path, tiny_run: Path) -> None:
    assert card.sha256 == file_digest(exported)
    (data,) = card.data
    split = json.loads((tiny_run / "run.json").read_text(encoding="utf-8"))["split"]
    assert data.scans == data.patients == len(split["train"])
    assert "net.options=" in card.recipe and card.recipe.startswith("fast with ")
    assert [figure.value for figure in card.measured] == ["0.4 mL", "0.600 (0.500 to 0.700)"]
    assert not any(figure.seen for figure in card.measured)
    missed = [limit for limit in card.limits if limit.startswith("misses")]
    assert missed == ["misses what was asked of it: phantoms: Dice per scan 0.600 (0.500 to 0.700), at least 0.750"]
    for text in (card.title, card.sha256, *(limit for limit in card.limits), hemotorch.NOTICE):
        assert text in pack.page(card)


def test_figures_of_another_network_and_unknown_sources_are_refused(
    exported: Path, tiny_run: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    figures.write_text(json.dumps({"sha256": "0" * 64, "figures": []}), encoding="utf-8")
    with pytest.raises(InputError, match="figures of another network"):
        pack.make_card(tiny_run, exported, figures, "make model", {})
    figures.write_text(json.dumps({"sha256": file_digest(exported), "figures": []}), encoding="utf-8")
    with pytest.raises(InputError, match="no known source; say with --source"):
        pack.make_card(tiny_run, exported, figures, "make model", {})
    assert pack.source_of("pge-head-paint1", {"pge": "ge-nifti"}) == "ge-nifti"
    assert pack.source_of("ge-dicom-dicom-paint1", {}) == "ge-dicom"


def test_the_first_argument_may_be_a_missing_run_or_a_missing_scan(filled: Path, scan: Path) -> None:
    with pytest.raises(InputError, match="name a run folder or a model file, or scans alone"):
        models_and_scans([], ["runn", str(scan)])
    models, scans = models_and_scans([], [str(scan)])
    assert models == [str(filled / "default.onnx")] and scans == [str(scan)]


def test_a_figure_says_whether_it_is_met() -> None:
    least = table_b.Figure("painted", "x", 0.8, "", 0.75, 0.85)
    most = table_b.Figure("heads", "x", 0.8, "mL", 1.0, 0.0, most=True)
    assert least.met and most.met
    assert not replace(least, value=0.7).met and not replace(most, value=1.2).met
    assert not replace(least, value=float("nan")).met and not replace(most, value=float("nan")).met
    assert "MISSED" in replace(most, value=1.2).row() and "at most 1.0 mL" in most.row()


def test_what_is_in_the_box_here_is_whole() -> None:
    """The model that this checkout comes with; its card's page is the one in the docs."""
    box.model_file.cache_clear()
    assert box.DEFAULT in box.names()
    assert box.model_file().stat().st_size <= 10e6
    assert (ROOT / "docs" / "model.md").read_text(encoding="utf-8") == pack.page(box.card())
    deployment = hemotorch.load_model().deployment
    assert deployment.task.types and deployment.task.channels == box.card().answers
