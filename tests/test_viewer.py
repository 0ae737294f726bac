"""The slider over slices: what it holds, and that it works in a browser without network."""

from __future__ import annotations

import html
import json
from pathlib import Path

import numpy as np
import pytest

import tiny
from browser import screenshot, text_of
from hemotorch.data.dataset import Dataset
from hemotorch.data.splits import Split
from hemotorch.evaluation.evaluate import evaluate
from hemotorch.inference.baseline import RuleBaseline
from hemotorch.labels import CODES, COLOURS
from hemotorch.pictures import PREDICTED_RGB
from hemotorch.pictures.viewer import SliderFrame, viewer_html
from hemotorch.scan import Prediction, even_scan
from hemotorch.task import BLEEDING, TYPED
from webpage import Page


def inner(element: str) -> str:
    """The page inside the frame, which is well formed as the frame is and asks for nothing from outside."""
    Page(f"<body>{element}</body>")
    page = html.unescape(element.split('srcdoc="')[1].split('"')[0])
    assert all(link.startswith("data:") for link in Page(page).links)
    assert "http" not in page and "@import" not in page and "url(" not in page
    return page


def prediction(typed: bool) -> Prediction:
    scan, mask = tiny.head(3)
    code = CODES["intraparenchymal"] if typed else 1
    return Prediction(
        scan,
        (mask > 0) * np.uint8(code),
        None,
        {},
        "<b>network</b>",
        warnings=("careful & slow",),
        task=TYPED if typed else BLEEDING,
    )


def test_a_scan_says_what_it_is() -> None:
    scan, _ = tiny.head(3)
    words = Page(inner(scan._repr_html_())).words
    assert "6 slices of 64 x 64 pixels, 3 x 3 mm, 5 mm apart" in words and "slice 4" in words
    unknown = even_scan(scan.hu, 1, 1, "png", spacing_known=False)
    assert "6 slices of 64 x 64 pixels, spacing unknown" in Page(inner(unknown._repr_html_())).words


def test_a_prediction_shows_volumes_model_and_warnings() -> None:
    page = Page(inner(prediction(typed=True)._repr_html_()))
    volume = f"{prediction(typed=True).scan.volume_ml(prediction(typed=True).mask):.1f} mL"
    assert f"intraparenchymal {volume}" in page.words
    assert "<b>network</b>" in page.words and "careful & slow" in page.words, "text is escaped, not markup"
    assert any(words.startswith("slice ") and "found IPH" in words for words in page.words)
    plain = Page(inner(prediction(typed=False)._repr_html_())).words
    assert any(words.startswith(f"found: {volume}") for words in plain)


def test_many_slices_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scan = even_scan(np.rint(rng.normal(35, 8, (300, 256, 256))).astype(np.int16), 0.9, 0.6)
    element = scan._repr_html_()
    print(len(element) / 1e6)
    assert len(element) < 4e6, "noise is what JPEG is worst at"
    assert "48 of 300 slices are shown" in Page(inner(element)).words


def test_scores_show_their_examples(tiny_prepared: Path) -> None:
    dataset = Dataset(tiny_prepared)
    everyone = Split("all", "patient", {}, {}, {case: tuple(range(tiny.SLICES)) for case in dataset.cases})
    scores = evaluate(RuleBaseline(), dataset, everyone)
    page = inner(scores._repr_html_())
    words = Page(page).words
    assert all(line in words for line in scores.lines()) and "prediction" in words
    captions = json.loads(page.split("const captions = ")[1].split(";\n")[0])
    assert len(captions) == sum(len(example.hu) for example in scores.examples)
    assert captions[0].startswith("best: 0")
    bare = evaluate(RuleBaseline(), dataset, everyone, examples=False)
    assert "slider" not in inner(bare._repr_html_())


@pytest.fixture
def ramp() -> list[SliderFrame]:
    """Seven grey squares of unlike sizes; the fifth has a line of the colour of what was found."""
    frames = []
    for index in range(7):
        grey = np.full((96, 96 - 8 * index), 30 * index + 20, np.uint8)
        lines = np.zeros_like(grey)
        lines[20:24, 10:-10] = 2 * (index == 4)
        frames.append(SliderFrame(grey, lines, f"frame {index} </script>"))
    return frames


def write_page(path: Path, element: str, script: str = "") -> Path:
    """A page around the element; `script` runs with `page` as the document inside."""
    path.write_text(
        "<!DOCTYPE html><meta charset=utf-8><body style='margin: 0'>"
        + element
        + "<pre id=result></pre><script>addEventListener('load', () => {"
        + "const page = document.querySelector('iframe').contentDocument, said = [];"
        + f"{script}; document.getElementById('result').textContent = JSON.stringify(said); }})</script>",
        encoding="utf-8",
    )
    return path


def test_the_slider_moves_through_the_frames(ramp: list[SliderFrame], tmp_path: Path) -> None:
    script = """
    const slider = page.getElementById("slider");
    for (const index of [0, 4, 6]) {
        slider.value = index;
        slider.dispatchEvent(new Event("input"));
        said.push([page.getElementById("caption").textContent, page.getElementById("lines").style.transform]);
    }
    page.getElementById("frame").dispatchEvent(new WheelEvent("wheel", {deltaY: 1, cancelable: true}));
    said.push([page.getElementById("caption").textContent, slider.value]);
    """
    page = write_page(tmp_path / "page.html", viewer_html("ramp", ramp, start=2), script)
    assert json.loads(text_of(page, "result")) == [
        ["frame 0 </script>", "translate(0px, 0px)"],
        ["frame 4 </script>", "translate(-96px, -96px)"],
        ["frame 6 </script>", "translate(0px, -192px)"],
        ["frame 5 </script>", "5"],
    ]


def pixels_of_grey(picture: np.ndarray, grey: int) -> int:
    return int((np.abs(picture.astype(int) - grey).max(axis=-1) <= 4).sum())


def test_a_browser_shows_the_frame_that_is_chosen(ramp: list[SliderFrame], tmp_path: Path) -> None:
    first = screenshot(write_page(tmp_path / "first.html", viewer_html("ramp", ramp, start=2)), (400, 320))
    assert pixels_of_grey(first, 80) > 90 * 70 > 500 > pixels_of_grey(first, 140)
    move = "const s = page.getElementById('slider'); s.value = 4; s.dispatchEvent(new Event('input'))"
    moved = screenshot(write_page(tmp_path / "moved.html", viewer_html("ramp", ramp), move), (400, 320))
    assert (moved == PREDICTED_RGB).all(axis=-1).sum() == 4 * (64 - 20), "sharp lines over the grey"
    hide = move + "; page.getElementById('outlines').click()"
    hidden = screenshot(write_page(tmp_path / "hidden.html", viewer_html("ramp", ramp), hide), (400, 320))
    assert not (hidden == PREDICTED_RGB).all(axis=-1).any()
    assert pixels_of_grey(hidden, 140) > 90 * 60


def test_without_scripts_the_first_picture_stays(ramp: list[SliderFrame], tmp_path: Path) -> None:
    element = viewer_html("ramp", ramp, start=4).replace("<iframe ", "<iframe sandbox ")
    seen = screenshot(write_page(tmp_path / "page.html", element), (400, 320))
    assert (seen == PREDICTED_RGB).all(axis=-1).sum() == 4 * (64 - 20)


def test_a_typed_prediction_in_a_browser(tmp_path: Path) -> None:
    seen = screenshot(write_page(tmp_path / "page.html", prediction(typed=True)._repr_html_()), (700, 700))
    assert (seen == COLOURS["intraparenchymal"]).all(axis=-1).sum() > 100
    assert (seen[600:, :600] == (18, 18, 20)).all(axis=-1).mean() < 0.6, "the frame is no higher than its content"
