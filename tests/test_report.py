"""The report: what it says first, that it needs nothing else, and that nothing undefined is printed as a number."""

from __future__ import annotations

import base64
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import tiny
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError
from hemotorch.evaluation.doubted import WithDoubts
from hemotorch.evaluation.evaluate import evaluate
from hemotorch.evaluation.scores import Scores
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.labels import CODES, COLOURS
from hemotorch.pictures import PREDICTED_RGB, TRUTH_RGB, slice_rgb
from hemotorch.report.plots import PICTURE_PX, agreement, dice_by_volume, pictures, training
from hemotorch.report.run_report import evaluate_run, split_for, write_report
from hemotorch.run import Run
from hemotorch.scan import Doubt, Prediction, Scan
from hemotorch.system.metrics import EpochMetrics
from hemotorch.task import TYPED
from hemotorch.training.loop import train
from webpage import Page

METRICS = [
    EpochMetrics(epoch=n, step=7 * n, loss=1 / n, lr=4e-3 / n, seconds=9.0 * n, val={"dice": 0.1 * n, "n": 1})
    for n in range(1, 7)
]


@pytest.fixture(scope="module")
def dataset(tiny_prepared: Path) -> Dataset:
    return Dataset(tiny_prepared)


@pytest.fixture(scope="module")
def scores(dataset: Dataset) -> Scores:
    """The baseline with other constants, standing for a network, on all ten scans."""
    return evaluate(RuleBaseline(low_hu=50, min_ml=0.1), dataset, dataset.splits["patient"], "all")


def written(scores: Scores, out: Path, **other) -> tuple[str, Page]:
    text = write_report(scores, out, METRICS, {"Recipe": 'name = "<fast>"'}, **other).read_text(encoding="utf-8")
    return text, Page(text)


def test_it_needs_no_other_file_and_no_script(scores: Scores, tmp_path: Path) -> None:
    text, page = written(scores, tmp_path)
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in page.links)
    assert "<script" not in text and "@import" not in text and "url(http" not in text
    assert len(text) < 3_000_000
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]\b", text), "every figure colour became one of the page's"
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids)), "figures share no ids"


def test_it_says_all_that_was_asked(scores: Scores, tmp_path: Path) -> None:
    _, page = written(scores, tmp_path)
    words = " ".join(page.words)
    assert "trained on" in page.words[0], "part 'all' holds training scans"
    assert "Research use only" in page.words[1]
    for scan in scores.scans:
        assert scan.case in page.words
    for wanted in ("Table 1", "Pixel reading", "Slice reading", "Bland-Altman", "Best", "Median", "Worst", "baseline"):
        assert wanted in words
    assert f"{scores.summary['dice']['scan']['mean']:.2f}" in page.words
    assert f"{scores.baseline_summary['dice']['scan']['mean']:.2f}" in page.words
    assert "6 epochs" in words and 'name = "<fast>"' in words
    assert "nan" not in words.lower().split() and "None" not in page.words


def test_a_slice_wise_report_says_so_in_its_first_line(dataset: Dataset, tmp_path: Path) -> None:
    split = dataset.splits["slice-80-20"]
    _, page = written(evaluate(RuleBaseline(), dataset, split), tmp_path)
    both = len({case for case in split.test if split.test[case]} & {case for case in split.train if split.train[case]})
    assert page.words[0].startswith(f"Patients are on both sides of this slice-wise split: {both} of the ")
    assert f"its own {sum(map(len, split.test.values()))} slices" in page.words[0]


def test_a_clean_split_by_patient_begins_with_the_notice(dataset: Dataset, tmp_path: Path) -> None:
    _, page = written(evaluate(RuleBaseline(), dataset, dataset.splits["patient"]), tmp_path)
    assert page.words[0].startswith("Research use only")
    assert "None of these patients was trained on" in " ".join(page.words)


def test_png_folders_have_no_patients_and_no_ml(tiny_data: Path, tmp_path: Path) -> None:
    prepare(tiny_data, tmp_path / "first", png=True)
    for path in (tmp_path / "first" / "png").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("_", "slice")))  # a name that tells no patient
    (tmp_path / "first" / "png" / "window.json").write_text('{"level": 40, "width": 120}')
    prepare(tmp_path / "first" / "png", tmp_path / "second")
    dataset = Dataset(tmp_path / "second")
    scores = evaluate(RuleBaseline(), dataset, next(iter(dataset.splits.values())))
    _, page = written(scores, tmp_path)
    assert page.words[0].startswith("Which patient a scan is of is unknown here")
    words = " ".join(page.words)
    assert "nan" not in words.lower().split() and "unknown patients" in words
    assert dice_by_volume(scores) == agreement(scores) == ""
    assert scores.summary["dice"]["scan"]["n"] > 0 and scores.summary["volume"]["n"] == 0


def test_one_scan_no_bleeding_and_no_baseline_still_make_a_page(scores: Scores, tmp_path: Path) -> None:
    normal = [scan for scan in scores.scans if not scan.network.bleeding][:1]
    bleeding = [scan for scan in scores.scans if scan.network.bleeding][:1]
    for scans in (normal, bleeding):
        few = replace(scores, scans=tuple(replace(scan, baseline=None) for scan in scans), examples=())
        _, page = written(few, tmp_path)
        assert "nan" not in " ".join(page.words).lower().split()


class Unsure:
    """Outlines the truth where it is sure, and all of the first slice where it is not: in every second case."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def predict(self, scan: Scan, any_anatomy: bool = True, doubts: bool = False) -> Prediction:
        mask = (self.dataset.mask(scan.name) > 0).astype(np.uint8)
        unsure = sorted(self.dataset.cases).index(scan.name) % 2 == 1
        mask[0] |= unsure
        said = (Doubt("faint", "it is faint"),) if unsure else ()
        return Prediction(scan, mask, None, {"total": scan.volume_ml(mask)}, "unsure", doubts=said if doubts else None)


def test_scans_in_doubt_are_counted_beside_the_others(dataset: Dataset, tmp_path: Path) -> None:
    split = dataset.splits["patient"]
    plain = evaluate(Unsure(dataset), dataset, split, "all")
    assert plain.doubts is None and plain.to_json()["doubts"] is None
    scores = evaluate(WithDoubts(Unsure(dataset)), dataset, split, "all")
    doubts = scores.to_json()["doubts"]
    count = len(dataset.cases)
    assert doubts["doubted"]["scans"] == count // 2 and doubts["undoubted"]["scans"] == count - count // 2
    assert doubts["codes"] == {"faint": count // 2}
    assert doubts["undoubted"]["dice"]["mean"] == 1 > doubts["doubted"]["dice"]["mean"] > 0
    text, page = written(scores, tmp_path)
    assert "Scans in doubt" in text and "Said were: faint" in " ".join(page.words)
    assert any("are in doubt: Dice" in line for line in scores.lines())
    assert {scan.row()["doubts"] for scan in scores.scans} == {"", "faint"}


class Retyped:
    """Outlines the truth, in the upper half of a scan as subdural and in the lower as intraparenchymal."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def predict(self, scan: Scan) -> Prediction:
        mask = (self.dataset.mask(scan.name) > 0).astype(np.uint8)
        middle = len(mask) // 2
        mask[:middle] *= CODES["intraparenchymal"]
        mask[middle:] *= CODES["subdural"]
        return Prediction(scan, mask, None, {"total": scan.volume_ml(mask)}, "retyped", task=TYPED)


def test_types_have_a_dice_each_and_a_table_of_what_was_taken_for_what(dataset: Dataset, tmp_path: Path) -> None:
    scores = evaluate(Retyped(dataset), dataset, dataset.splits["patient"], "all")
    text, page = written(scores, tmp_path)
    row = scores.summary["types"]["intraparenchymal"]["dice"]
    assert f"{row['mean']:.2f}" in page.words and f"{scores.summary['macro']['dice']:.2f}" in " ".join(page.words)
    amounts = np.array(scores.summary["confusion"]["amounts"])
    true, taken = CODES["intraparenchymal"], CODES["subdural"]
    cell = page.words.index(f"{100 * amounts[true, taken] / amounts[true].sum():.0f} %")
    assert page.words[cell - 1] == f"{amounts[true, taken]:.1f}", "the share stands beneath its amount"
    share = amounts[true, true] / amounts[true].sum()
    assert f'class="shaded strong" style="--tint:{share:.3f}"' in text, "what is right is bold"
    for name, rgb in COLOURS.items():
        assert name in page.words and f"rgb{rgb}" in text, "named beside its colour, for eyes that tell few apart"
    example = scores.examples[0]
    shown = Image.open(io.BytesIO(base64.b64decode(pictures(example)[0][1].partition(",")[2]))).convert("RGB")
    colours = {tuple(pixel) for pixel in np.asarray(shown).reshape(-1, 3).tolist()}
    assert colours & {COLOURS["intraparenchymal"], COLOURS["subdural"]} and PREDICTED_RGB not in colours


def test_without_types_nothing_is_said_of_them(scores: Scores, tmp_path: Path) -> None:
    words = " ".join(written(scores, tmp_path)[1].words)
    assert "Which type was taken" not in words and "Mean over types" not in words


def test_names_are_escaped(scores: Scores, tmp_path: Path) -> None:
    odd = replace(scores, model="<b>&", scans=(replace(scores.scans[0], case="<i>'"), *scores.scans[1:]))
    text, page = written(odd, tmp_path)
    assert "<b>&" in page.words and "<i>'" in page.words and "<i>'" not in text


def test_the_same_scores_give_the_same_page(scores: Scores, tmp_path: Path) -> None:
    assert written(scores, tmp_path / "a")[0] == written(scores, tmp_path / "b")[0]


def test_pictures_keep_grey_and_outlines(scores: Scores) -> None:
    example = scores.examples[0]
    number, url = pictures(example)[0]
    assert number == example.slice_numbers[0]
    picture = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    shown = np.asarray(picture).astype(int)
    truth, found = example.truth[0], example.predicted[0]
    wanted = slice_rgb(example.hu[0], truth=truth, predicted=found, pixel_mm=example.pixel_mm, height=PICTURE_PX)
    assert shown.shape == wanted.shape and np.abs(shown - wanted.astype(int)).max() <= 1
    for colour in (TRUTH_RGB, PREDICTED_RGB):
        assert ((shown == colour).all(axis=-1) == (wanted == colour).all(axis=-1)).all()
        assert (shown == colour).all(axis=-1).any()


def test_training_curves_are_drawn_from_what_there_is() -> None:
    assert training([]) == ""
    bare = [replace(row, val=None) for row in METRICS]
    assert "validation Dice" in training(METRICS) and "validation Dice" not in training(bare)


def test_corrected_masks_are_the_same_scans_and_the_runs_own_split(tiny_run, tmp_path: Path) -> None:
    source = tiny.write_dataset(tmp_path / "corrected")
    path = source / "masks" / "055.nii"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 5, axis=0), image.affine), path)
    prepare(source, tmp_path / "prepared")
    corrected, run = Dataset(tmp_path / "prepared"), Run.open(tiny_run)
    assert split_for(run.split, run.record.scans, corrected) == (run.split, False)
    assert corrected.mask_digest("055") != run.record.masks["055"]
    with pytest.raises(InputError, match="the mask of scan 055 was changed"):
        train(tmp_path / "prepared", shutil.copytree(tiny_run, tmp_path / "run"), device="cpu", resume=True)


def test_another_dataset_is_scored_whole_or_by_a_split_of_its_own(tiny_run, tmp_path: Path) -> None:
    prepare(tiny.write_dataset(tmp_path / "other", patients=1, normal=0, seed=900), tmp_path / "prepared")
    with pytest.raises(InputError, match=r"is another dataset and has no split 'patient'.*--split all"):
        evaluate_run(tiny_run, tmp_path / "out", data=tmp_path / "prepared", device="cpu")
    scores = evaluate_run(tiny_run, tmp_path / "all", data=tmp_path / "prepared", part="all", device="cpu")
    assert scores.split["external"] and scores.split["scans"] == 1 and scores.split["audit"] == []
    words = " ".join(Page((tmp_path / "all" / "report.html").read_text()).words)
    assert "overlap between the two was not audited" in words and "no identical slice" not in words


@pytest.mark.parametrize(("kept", "says"), [("last", "Validation chose nothing"), ("dice", "best validation dice")])
def test_what_validation_was_for(scores: Scores, tmp_path: Path, kept: str, says: str) -> None:
    told = replace(scores, about={"recipe": {"train": {"best_by": kept}}})
    assert says in " ".join(written(told, tmp_path)[1].words)
