"""Correcting in the browser: what is drawn is what is saved, through undo, reload, other tabs and other readers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from app_browser import AppServer, Visitor, app_server, visitor
from conftest import require
from hemotorch.scan import even_scan
from test_app_viewer import BALL, CRESCENT, PIXEL_MM, SLICE_MM, add, drag, head, jump, screen, until, wait_for_slice

require("fastapi")
require("playwright.sync_api")
from playwright.sync_api import Page  # noqa: E402  it may be missing

pytestmark = pytest.mark.long  # half a minute and more together; `make test` is to take ten minutes

_numbers = count()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def app(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with app_server(tmp_path_factory.mktemp("app") / "workspace", "--allow", str(scans)) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Visitor]:
    with visitor() as opened:
        yield opened


@pytest.fixture
def study(app: AppServer, scans: Path) -> str:
    """A study of its own for each test, with a mask that came along."""
    number = next(_numbers)
    scan, mask = head()
    hu = scan.hu.copy()
    hu[0, 0, 0] = -900 + number  # no two are the same scan
    return add(app, scans / str(number), even_scan(hu, PIXEL_MM, SLICE_MM), mask)


@pytest.fixture
def page(app: AppServer, browser: Visitor, study: str) -> Iterator[Page]:
    """A tab in which nothing may go wrong but what a test takes out of the list by `refused`."""
    opened = opened_study(app, browser, study)
    yield opened
    opened.context.close()
    browser.check()


def refused(browser: Visitor, status: int) -> None:
    """The server refused one request with this status, as the test wanted; Chromium says so in the console."""
    [line] = browser.said
    assert f"status of {status}" in line
    browser.said.clear()


def opened_study(app: AppServer, browser: Visitor, study: str, user: str = "") -> Page:
    """A tab of a reader with the study's fifth slice."""
    opened = browser.page(app)
    if user:
        script = """user => fetch('/api/v1/session', {method: 'PATCH', body: JSON.stringify({user}),
            headers: {'Content-Type': 'application/json'}}).then(answer => answer.status)"""
        assert opened.evaluate(script, user) == 200
    opened.goto(f"{app.url}/studies/{study}?slice=5")
    wait_for_slice(opened, 4)
    until(opened, "document.querySelector('[data-total]') !== null")
    return opened


def layer(app: AppServer, study: str, name: str) -> np.ndarray:
    """(slices, rows, columns) codes of a layer, as the server has them."""
    headers = {"Authorization": f"Bearer {app.token}"}
    with urlopen(Request(f"{app.url}/api/v1/studies/{study}/mask/{name}", headers=headers)) as answer:
        return np.frombuffer(answer.read(), np.uint8).reshape(head()[1].shape)


def wait_for_draft(page: Page, state: str) -> None:
    until(page, f"document.querySelector('[data-draft]')?.dataset.draft === '{state}'")


def begin(page: Page, tool: str = "b") -> None:
    """Takes a drawing tool, which begins a correction."""
    page.keyboard.press(tool)
    until(page, "document.querySelector('[data-draft]') !== null")


def save(page: Page, comment: str = "") -> None:
    page.get_by_label("Comment").fill(comment)
    page.get_by_role("button", name="Save version").click()
    until(page, "document.querySelector('[data-draft]') === null")


def capsule(a: tuple[float, float], b: tuple[float, float], radius_mm: float) -> np.ndarray:
    """(rows, columns) bool: within the radius of the line between two pixels' middles."""
    rows, columns = np.indices(head()[1].shape[1:])
    points = np.stack([rows, columns], axis=-1) * PIXEL_MM
    start, end = np.array(a) * PIXEL_MM, np.array(b) * PIXEL_MM
    share = ((points - start) @ (end - start) / ((end - start) @ (end - start))).clip(0, 1)
    return np.linalg.norm(points - start - share[..., None] * (end - start), axis=-1) <= radius_mm


def total(page: Page) -> str:
    return page.locator("[data-total]").inner_text()


def wait_for_total(page: Page, text: str) -> None:
    """Waits until the panel shows that volume: it is drawn a moment after what it is counted from."""
    deadline = time.monotonic() + 30
    while total(page) != text:
        assert time.monotonic() < deadline, f"{total(page)} is shown, not {text}"
        time.sleep(0.05)


def test_what_is_drawn_is_what_is_saved(app: AppServer, page: Page, study: str, tmp_path: Path) -> None:
    _, mask = head()
    before = total(page)
    begin(page)
    page.get_by_role("radio", name="SDH").click()
    page.locator("h1").click()
    drag(page, (60, 20), (40, 34))
    after = total(page)
    assert after != before
    page.keyboard.press("Control+z")
    wait_for_total(page, before)
    page.keyboard.press("Control+y")
    wait_for_total(page, after)
    wait_for_draft(page, "saved")
    page.reload()  # in the middle of it: the draft comes back
    wait_for_slice(page, 4)
    wait_for_draft(page, "saved")
    wait_for_total(page, after)
    save(page, "a small one was missed")
    [version] = app.ask(f"/studies/{study}/versions")
    assert (version["number"], version["comment"], version["base"]) == (1, "a small one was missed", "truth")
    saved = layer(app, study, "version:1")
    other = np.delete(np.arange(len(mask)), 4)
    assert (saved[other] == mask[other]).all()
    drawn = saved[4] != mask[4]
    assert (saved[4][drawn] == CRESCENT).all()
    assert not (capsule((60, 20), (40, 34), 3.6) & ~drawn).any(), "thinner than the brush of 4 mm"
    assert not (drawn & ~capsule((60, 20), (40, 34), 4.4)).any(), "thicker than the brush of 4 mm"
    assert (layer(app, study, "truth") == mask).all(), "what was there before never changes"
    wait_for_total(page, after)  # the version is what is shown now
    with page.expect_download() as download:
        page.get_by_text("version 1: mask").click()
    assert download.value.suggested_filename == f"{study}_version1_mask.nii.gz"
    file = tmp_path / "mask.nii.gz"
    download.value.save_as(file)
    assert np.count_nonzero(nibabel.load(file).get_fdata()) == np.count_nonzero(saved)
    listed = app.ask(f"/studies/{study}")
    assert listed["state"] == "corrected" and listed["versions"] == 1


def test_eraser_and_alt_take_away_and_soft_tissue_only_spares_bone(app: AppServer, page: Page, study: str) -> None:
    scan, _ = head()
    begin(page, "e")
    drag(page, (60, 54), (60, 56))
    page.keyboard.press("b")
    page.keyboard.down("Alt")
    drag(page, (66, 54), (66, 56))
    page.keyboard.up("Alt")
    page.keyboard.press("h")
    page.get_by_role("radio", name="EDH").click()
    page.locator("h1").click()
    drag(page, (48, 4), (48, 14))  # from outside the head through bone into brain
    save(page)
    saved = layer(app, study, "version:1")[4]
    assert not saved[60, 53:57].any() and not saved[66, 54:57].any()
    drawn = saved == 1
    assert drawn.sum() > 3 and (scan.hu[4][drawn] >= 35).all() and (scan.hu[4][drawn] <= 110).all()
    wanted = capsule((48, 4), (48, 14), 3.6) & (scan.hu[4] >= 35) & (scan.hu[4] <= 110)
    assert drawn[wanted].all()


def test_grow_from_a_click_finds_the_ball_in_all_slices(app: AppServer, page: Page, study: str) -> None:
    _, mask = head()
    page.get_by_label("Begin from").select_option("")
    begin(page, "g")
    page.get_by_role("radio", name="IPH").click()
    page.locator("h1").click()
    page.mouse.click(*screen(page, 60, 54))
    until(page, "document.querySelector('[data-total]').textContent !== '0.0 mL'")
    save(page)
    assert (layer(app, study, "version:1") == np.where(mask == BALL, BALL, 0)).all()


def test_lasso_fill_type_and_interpolation(app: AppServer, page: Page, study: str) -> None:
    _, mask = head()
    begin(page, "e")
    for _ in range(40):
        page.keyboard.press("]")
    drag(page, (60, 48), (60, 60))  # the ball's middle slice is gone
    page.keyboard.press("i")
    until(page, "document.body.textContent.includes('Slices filled: 1')")
    page.keyboard.press("l")
    page.get_by_role("radio", name="SAH").click()
    page.locator("h1").click()
    drag(page, (40, 20), (40, 30), (50, 30), (50, 20), (40, 20))
    page.keyboard.press("t")
    page.get_by_role("radio", name="IVH").click()
    jump(page, 9)
    inside = np.argwhere(mask[9] == CRESCENT)[10]
    page.mouse.click(*screen(page, *inside))
    save(page)
    saved = layer(app, study, "version:1")
    refilled, ball = saved[4] == BALL, mask[4] == BALL
    assert 2 * (refilled & ball).sum() / (refilled.sum() + ball.sum()) > 0.85
    square = saved[4] == 4
    rows, columns = np.nonzero(square)
    assert (
        95 <= square.sum() <= 125 and (rows.min(), columns.min()) >= (39, 19) and max(rows.max(), columns.max()) <= 51
    )
    assert (saved[mask == CRESCENT] == 3).all() and (saved == CRESCENT).sum() == 0


def test_by_keyboard_alone(app: AppServer, page: Page, study: str) -> None:
    page.keyboard.press("b")
    until(page, "document.querySelector('[data-draft]') !== null")
    page.keyboard.press("Shift+1")  # epidural
    for _ in range(2):
        page.keyboard.press("Control+Shift+ArrowUp")
    page.keyboard.press("Enter")
    wait_for_draft(page, "saved")
    page.keyboard.press("Control+s")
    until(page, "document.querySelector('[data-draft]') === null")
    drawn = layer(app, study, "version:1")[4] == 1
    assert ndimage.center_of_mass(drawn) == pytest.approx((28, 40)) and drawn.sum() == 13  # a disc of 4 mm


def test_another_tab_is_not_overwritten_in_silence(app: AppServer, page: Page, browser: Visitor, study: str) -> None:
    begin(page)
    drag(page, (60, 20), (58, 22))
    wait_for_draft(page, "saved")
    other = opened_study(app, browser, study)
    wait_for_draft(other, "saved")
    other.keyboard.press("b")
    drag(other, (40, 30), (40, 32))
    until(other, "document.querySelector('[data-draft]').dataset.draft === 'unsaved'")
    wait_for_draft(other, "saved")
    page.keyboard.press("b")
    drag(page, (70, 30), (70, 32))
    wait_for_draft(page, "conflict")
    theirs = np.frombuffer(app_draft(other, study), np.uint8).reshape(head()[1].shape)
    assert theirs[4, 40, 31] and not theirs[4, 70, 31]
    page.get_by_role("button", name="Keep this one").click()
    wait_for_draft(page, "saved")
    mine = np.frombuffer(app_draft(other, study), np.uint8).reshape(head()[1].shape)
    assert mine[4, 70, 31] and not mine[4, 40, 31]
    other.context.close()
    refused(browser, 412)


def app_draft(page: Page, study: str) -> bytes:
    """The draft that the server has of this tab's reader."""
    script = """study => fetch(`/api/v1/studies/${study}/draft/mask`).then(answer => answer.arrayBuffer())
        .then(bytes => [...new Uint8Array(bytes)])"""
    return bytes(page.evaluate(script, study))


def test_another_readers_version_is_shown_before_saving_after_it(
    app: AppServer, page: Page, browser: Visitor, study: str
) -> None:
    begin(page)
    drag(page, (60, 20), (58, 22))
    wait_for_draft(page, "saved")
    other = opened_study(app, browser, study, user="Olena")
    begin(other)
    drag(other, (40, 30), (40, 32))
    save(other, "mine")
    other.context.close()
    page.get_by_role("button", name="Save version").click()
    page.get_by_text("Olena saved version 1 meanwhile").wait_for()
    assert len(app.ask(f"/studies/{study}/versions")) == 1
    page.get_by_role("button", name="Save after it").click()
    until(page, "document.querySelector('[data-draft]') === null")
    assert [one["number"] for one in app.ask(f"/studies/{study}/versions")] == [1, 2]
    page.get_by_text("Compare", exact=True).first.click()
    page.get_by_role("button", name="Compare", exact=True).click()
    compared = app.ask(f"/studies/{study}/compare?a=version:1&b=version:2")
    page.get_by_role("cell", name=f"{compared['dice']['total']:.3f}").wait_for()
    refused(browser, 409)


def test_measurements_are_kept(app: AppServer, page: Page, study: str) -> None:
    page.keyboard.press("r")
    drag(page, (30, 20), (30, 50))
    page.keyboard.press("o")
    drag(page, (60, 54), (60, 57))
    until(page, "document.querySelectorAll('aside li .remove').length === 2")
    page.wait_for_timeout(500)
    items = app_measurements(page, study)
    assert [item["kind"] for item in items] == ["ruler", "circle"] and items[0]["index"] == 4
    (x0, y0), (x1, y1) = items[0]["points"]
    assert np.hypot(x1 - x0, y1 - y0) == pytest.approx(60, abs=0.5)
    assert items[1]["points"][0] == pytest.approx([(54 + 0.5) * PIXEL_MM, (60 + 0.5) * PIXEL_MM], abs=0.3)
    page.reload()
    wait_for_slice(page, 4)
    until(page, "document.querySelectorAll('aside li .remove').length === 2")
    page.locator("aside li .remove").first.click()
    page.wait_for_timeout(500)
    assert [item["kind"] for item in app_measurements(page, study)] == ["circle"]


def app_measurements(page: Page, study: str) -> list[dict[str, Any]]:
    return page.evaluate("study => fetch(`/api/v1/studies/${study}/measurements`).then(a => a.json())", study)["items"]


def test_triage_by_one_key_goes_on_to_the_next_unread(app: AppServer, page: Page, study: str) -> None:
    page.keyboard.press("w")
    until(page, f"!location.pathname.endsWith('{study}')")
    assert app.ask(f"/studies/{study}")["state"] == "wrong"
    page.wait_for_selector("canvas.image[data-here=true][data-painted^=axial]")
