"""The page of one study: what it says, that its outlines are the mask's borders, and that it works in a browser."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tiny
from browser import dom_of, driven, screenshot, sheets_of, text_of
from hemotorch.inference.predictor import volumes_ml
from hemotorch.labels import CODES, COLOURS
from hemotorch.pictures.paths import outline_path
from hemotorch.report.study_page import Change, StudyText, study_page
from hemotorch.report.study_pictures import MOST_SLICES, study_pictures
from hemotorch.scan import Doubt, LeftOut, Prediction, even_scan
from hemotorch.task import BLEEDING, TYPED
from webpage import Page

DOUBTS = (Doubt("shading", "its brain is shaded <b>", 14.0, "HU"), Doubt("part", "a part of a head"))


def predicted(typed: bool = True, slices: int = 28) -> Prediction:
    """A head with a ball of bleeding, and of a second type above it."""
    scan, mask = tiny.head(3, slices=slices)
    mask[slices // 2, 20:24, 20:30] = CODES["subdural"]
    if not typed:
        mask = (mask > 0).astype(np.uint8)
    task = TYPED if typed else BLEEDING
    volumes = volumes_ml(scan, mask, task)
    interval = volumes["total"] * 0.9, volumes["total"] * 1.2
    return Prediction(
        scan,
        mask,
        None,
        volumes,
        "<i>net</i>",
        task=task,
        doubts=DOUBTS,
        interval_ml=interval,
        digest="ab" * 32,
        card="Trained on <phantoms>.",
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "study.html"
    path.write_text(study_page(predicted(), StudyText("study <1>")), encoding="utf-8")
    return path


def test_outlines_are_the_borders_of_the_mask() -> None:
    area = np.random.default_rng(0).random((30, 41)) > 0.6
    down, across = np.zeros((30, 42), int), np.zeros((31, 41), int)
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline_path(area)):
        if way == "v":
            down[int(y) : int(y) + int(length), int(x)] += 1
        else:
            across[int(y), int(x) : int(x) + int(length)] += 1
    # Whatever crosses a border is in or out of the area: the borders give it back, along rows and along columns.
    assert (np.cumsum(down, axis=1)[:, :-1] % 2 == area).all() and (np.cumsum(across, axis=0)[:-1] % 2 == area).all()
    assert outline_path(np.zeros((3, 3), bool)) == "" and outline_path(np.ones((2, 3), bool)).count("M") == 4


def test_the_page_says_what_was_found_and_doubts_it_first(page: Path) -> None:
    words = Page(page.read_text(encoding="utf-8")).words
    made = predicted()
    assert words[0].startswith("In doubt") and words[1] == "Its brain is shaded <b> (shading)"
    assert f"{made.volume_ml['total']:.1f}" in words and "Research use only, not a medical device." in words
    assert words.index("study <1>") < words.index("30 mL") and {
        "<i>net</i>",
        "Trained on <phantoms>.",
        "ab" * 32,
    } <= set(words)
    for name in ("subdural", "intraparenchymal"):
        assert words[words.index(name) + 1] == f"{made.volume_ml[name]:.1f} mL"
    assert words[words.index("epidural") + 1] == "none" and f"{len(made.slices_with_bleeding)} of 28" in words


def test_it_asks_for_nothing_from_outside(page: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert all(link.startswith(("data:", "#")) for link in Page(html).links)
    assert "default-src 'none'; img-src data:;" in html and not re.search(r"\son\w+=", html) and " style=" not in html


def test_without_bleeding_without_types_and_without_spacing() -> None:
    made = predicted(typed=False)
    assert "bleeding" in study_page(made, StudyText("a"))
    empty = replace(made, mask=made.mask * 0, volume_ml={"total": 0.0}, doubts=None, interval_ml=None)
    words = Page(study_page(empty, StudyText("a"))).words
    assert "None" in words and not any("In doubt" in text for text in words)
    unknown = even_scan(made.scan.hu, 1, 1, "png", spacing_known=False)
    unmeasured = replace(made, scan=unknown, volume_ml={"total": np.nan}, interval_ml=None)
    words = Page(study_page(unmeasured, StudyText("a"))).words
    assert any("mL unknown" in text for text in words) and any(text.endswith(" px") for text in words)
    assert "5 cm" not in words and not any("nan" in text for text in words)


def test_without_mL_only_types_that_are_outlined_are_found() -> None:
    """NaN is not 0: each of the five types was "found", with "< 0.1 mL"."""
    made = predicted()
    unknown = even_scan(made.scan.hu, 1, 1, "png", spacing_known=False)
    mask = np.where(made.mask == CODES["subdural"], 0, made.mask)
    volumes = dict.fromkeys(made.volume_ml, np.nan)
    html = study_page(replace(made, scan=unknown, mask=mask, volume_ml=volumes, interval_ml=None), StudyText("a"))
    held = {name for name, code in CODES.items() if (mask == code).any()}
    for name, code in CODES.items():
        amount = f"{np.count_nonzero(mask == code)} px" if name in held else "none"
        assert f"</span>{name} <b>{amount}</b>" in html
    assert 0 < len(held) < len(CODES) and "&lt; 0.1 mL" not in html


def test_the_interval_says_all_that_it_comes_from() -> None:
    words = Page(study_page(replace(predicted(), interval_ml=(1.0, 2.5)), StudyText("a"))).words
    assert "1.0 to 2.5 mL if the same scan is mirrored, moved, made a little darker or brighter" in words


def test_pieces_that_were_left_out_are_said_and_are_no_doubt() -> None:
    made = replace(predicted(), doubts=None, left_out=LeftOut(3, 1.24, 0.8))
    sentence = "3 pieces, 1.2 mL together, were left out: each is under 0.8 mL."
    words = Page(study_page(made, StudyText("a"))).words
    assert sentence in words and not any("In doubt" in text for text in words)
    assert not any("left out" in text for text in Page(study_page(predicted(), StudyText("a"))).words)


def test_follow_up_and_files_are_shown() -> None:
    change = Change("4.0 mL", "6 h earlier", "14.0 mL", "+10.0 mL", "+250 %", marked=True, page="a b.html")
    html = study_page(predicted(), StudyText("a", change=change, abc2_ml=12.34, files={"mask": "a b_mask.nii.gz"}))
    words = Page(html).words
    assert "+250 %" in words and "grown by more than 6 mL or 33 %" in words and "12.3 mL" in words
    assert "a b_mask.nii.gz" in words and 'href="a%20b_mask.nii.gz"' in html


def test_a_scan_of_thin_slices_stays_small() -> None:
    rng = np.random.default_rng(0)
    scan = even_scan(np.rint(rng.normal(35, 12, (300, 256, 256))).astype(np.int16), 0.9, 0.6)
    made = replace(predicted(), scan=scan, mask=np.zeros(scan.shape, np.uint8))
    pictures = study_pictures(made)
    html = study_page(made, StudyText("a"))
    print(len(html) / 1e6)
    assert len(pictures.slices) == MOST_SLICES and len(html) < 6e6, "noise is what JPEG is worst at"
    assert f"{MOST_SLICES} of 300 slices" in html


def test_the_slider_moves_by_keys_and_wheel(page: Path) -> None:
    script = """
    const now = () => [...view.children].findIndex(slice => getComputedStyle(slice).display !== "none");
    const press = key => view.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    said.push(now());
    view.focus();
    for (const key of ["End", "ArrowDown", "Home", "ArrowDown", "ArrowUp", "ArrowRight", "PageUp"]) {
        press(key);
        said.push(now());
    }
    view.dispatchEvent(new WheelEvent("wheel", { deltaY: 1, cancelable: true }));
    said.push(now(), slider.getAttribute("aria-valuetext").split(";")[0]);
    slider.value = 14;
    slider.dispatchEvent(new Event("input"));
    const line = view.children[14].querySelector(".line");
    said.push(now(), getComputedStyle(line).display);
    press("o");
    said.push(getComputedStyle(line).display);
    press("w");
    said.push(getComputedStyle(view.children[14].querySelector("image")).filter);
    document.querySelector("a[data-slice]").click();
    said.push(now(), document.activeElement === view);
    """
    said = json.loads(text_of(driven(page, script), "result"))
    made = predicted()
    areas = (made.mask > 0).sum(axis=(1, 2))
    key = study_pictures(made).key
    assert (
        said[0] == areas.argmax() and said[1:8] == [27, 26, 0, 0, 1, 2, 7] and said[8:10] == [6, "Slice 7, at 30.0 mm"]
    )
    assert said[10:] == [14, "inline", "none", "contrast(1.5)", key[0], True]


def test_a_browser_shows_it_and_complains_of_nothing(page: Path) -> None:
    dom = dom_of(page)
    assert re.search(r'<html lang="en" class="js">', dom), "the policy lets the page's own script run"
    injected = page.with_name("injected.html")
    html = page.read_text(encoding="utf-8").replace("</main>", "<script>document.title = 'in'</script></main>")
    injected.write_text(html, encoding="utf-8")
    with pytest.raises(AssertionError, match="Content Security Policy"):
        dom_of(injected)
    seen = screenshot(page, (1280, 1500))
    for name in ("subdural", "intraparenchymal"):
        assert (np.abs(seen.astype(int) - COLOURS[name]).max(axis=-1) < 8).sum() > 300, name


def test_it_prints_on_two_sheets(page: Path) -> None:
    assert sheets_of(page) == 2
    long = "its brain is shaded: its level differs by 14 HU from place to place; the model has seen up to 10 HU"
    doubts = tuple(Doubt(f"code{number}", long) for number in range(7))
    much = replace(predicted(slices=MOST_SLICES), doubts=doubts, warnings=(long,) * 6)
    change = Change("4.0 mL", "6 h earlier", "14.0 mL", "+10.0 mL", "+250 %", marked=True, notes=[long])
    full = page.with_name("full.html")
    full.write_text(study_page(much, StudyText("much", change=change)), encoding="utf-8")
    assert sheets_of(full) == 2
