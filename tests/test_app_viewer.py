"""The Scan page in a browser: pixels against HU and mask, keys, volumes, measuring, and a correction that is kept."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from scipy import ndimage

from app_browser import AppServer, Visitor, app_server, axe, visitor
from conftest import require
from hemotorch.hu import WINDOWS, to_grey
from hemotorch.io import nifti
from hemotorch.io.dicom.write import write_series
from hemotorch.labels import CODES, COLOURS
from hemotorch.scan import Scan, even_scan

require("fastapi")
require("playwright.sync_api")
from playwright.sync_api import Page  # noqa: E402  it may be missing

pytestmark = pytest.mark.long  # half a minute and more together; `make test` is to take ten minutes

SLICES, ROWS, COLUMNS = 12, 96, 80  #: all different, so that no two axes can be exchanged unseen
PIXEL_MM, SLICE_MM = 2.0, 5.0
BALL, CRESCENT = CODES["intraparenchymal"], CODES["subdural"]


def head() -> tuple[Scan, np.ndarray]:
    """A head with a ball on the patient's left and a crescent in front on the right; no two slices are alike."""
    z, y, x = np.indices((SLICES, ROWS, COLUMNS))
    radius = np.hypot((y - 48) / 42, (x - 40) / 34)
    hu = np.full(z.shape, -1000)
    hu[radius < 1] = 900
    brain = radius < 0.86
    hu[brain] = (24 + (x * 7 + y * 5 + z * 11) % 17)[brain]
    mask = np.zeros(z.shape, np.uint8)
    mask[np.hypot(np.hypot(y - 60, x - 54), (z - 4) * 2.5) < 9] = BALL
    mask[(radius < 0.86) & (radius > 0.72) & (y < 30) & (x < 40) & (z > 5) & (z < 10)] = CRESCENT
    hu[mask > 0] += 38
    return even_scan(hu.astype(np.int16), PIXEL_MM, SLICE_MM), mask


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    folder = tmp_path_factory.mktemp("app")
    with app_server(folder / "workspace", "--allow", str(folder)) as running:
        scan, mask = head()
        add(running, folder / "scans", scan, mask)
        yield running


def add(app: AppServer, folder: Path, scan: Scan, mask: np.ndarray, predict: bool = False) -> str:
    """Writes a scan and a mask into a folder that the server may read, and imports them. Returns the study's id."""
    folder.mkdir()
    name = f"head-{folder.name}"
    nifti.write_scan(scan, folder / f"{name}.nii.gz")
    nifti.write_mask(scan, mask, folder / f"{name}_mask.nii.gz")
    before = {one["id"] for one in app.ask("/studies?limit=200")["studies"]}
    job = app.ask("/imports", "POST", {"folder": str(folder), "predict": predict})
    app.until(f"/jobs/{job['id']}", lambda now: now["state"] not in ("waiting", "running"))
    [new] = {one["id"] for one in app.ask("/studies?limit=200")["studies"]} - before
    return new


@pytest.fixture(scope="module")
def browser() -> Iterator[Visitor]:
    with visitor() as opened:
        yield opened


@pytest.fixture
def page(app: AppServer, browser: Visitor) -> Iterator[Page]:
    """The study's page, all slices there; nothing may go wrong while a test uses it."""
    opened = browser.page(app)
    [study] = [one["id"] for one in app.ask("/studies")["studies"] if one["source"] != "DICOM"]
    opened.goto(f"{app.url}/studies/{study}?slice=5")
    wait_for_slice(opened, 4)
    opened.wait_for_timeout(300)
    yield opened
    opened.context.close()
    browser.check()


def wait_for_slice(page: Page, index: int, plane: str = "axial", window: str = "") -> None:
    start = f"{plane} {index} {window}"
    page.wait_for_selector(f"canvas.image[data-here=true][data-painted^='{start}']", timeout=60_000)


def until(page: Page, true: str) -> None:
    """Waits until a JavaScript expression is true. Playwright's own way needs eval, which the policy refuses."""
    deadline = time.monotonic() + 60
    while not page.evaluate(true):
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


def picture(page: Page) -> tuple[np.ndarray, float, float, float]:
    """(height, width, 4) uint8 of the canvas; screen pixels per mm; where the image begins."""
    script = """() => { const c = document.querySelector('canvas.image'); const d = c.getContext('2d')
        .getImageData(0, 0, c.width, c.height); let s = ''; for (let i = 0; i < d.data.length; i += 8192)
        s += String.fromCharCode(...d.data.subarray(i, i + 8192));
        return [c.width, c.height, btoa(s), c.dataset.camera] }"""
    width, height, text, camera = page.evaluate(script)
    scale, x, y = map(float, camera.split())
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(height, width, 4), scale, x, y


def screen_points(scale: float, x0: float, y0: float, shape: tuple[int, int], y_mm: float) -> tuple[np.ndarray, ...]:
    """Screen pixels at the middles of every third image pixel, and exactly where in the image their middles lie."""
    rows, columns = np.indices(shape)[:, 1:-1:3, 1:-1:3].reshape(2, -1)
    sx = np.floor(x0 + (columns + 0.5) * PIXEL_MM * scale).astype(int)
    sy = np.floor(y0 + (rows + 0.5) * y_mm * scale).astype(int)
    u = (sx + 0.5 - x0) / (PIXEL_MM * scale) - 0.5
    v = (sy + 0.5 - y0) / (y_mm * scale) - 0.5
    return sx, sy, u, v


def assert_shows(page: Page, grey: np.ndarray) -> None:
    """The canvas shows this image, each pixel in its place; between pixels it is linear, but for Skia's rounding."""
    pixels, scale, x0, y0 = picture(page)
    sx, sy, u, v = screen_points(scale, x0, y0, grey.shape, PIXEL_MM)
    shown = pixels[sy, sx]
    assert (shown[:, 0] == shown[:, 1]).all() and (shown[:, 0] == shown[:, 2]).all()

    def away(rows: float, columns: float) -> float:
        expected = ndimage.map_coordinates(grey.astype(float), [v + rows, u + columns], order=1, mode="nearest")
        return float(np.abs(shown[:, 0] - expected).mean())

    assert away(0, 0) < 1.5
    # Half a pixel aside it would be seen.
    assert min(away(0.5, 0), away(-0.5, 0), away(0, 0.5), away(0, -0.5)) > 3 * away(0, 0)


@pytest.mark.parametrize(("key", "name"), [("1", "brain-narrow"), ("2", "subdural"), ("4", "bone"), ("6", "brain")])
def test_canvas_shows_the_hu_in_the_window(page: Page, key: str, name: str) -> None:
    page.keyboard.press("m")
    page.keyboard.press(key)
    wait_for_slice(page, 4, window=name)
    scan, _ = head()
    assert_shows(page, to_grey(scan.hu[4], WINDOWS[name].level, WINDOWS[name].width))


def test_coronal_and_sagittal_in_true_proportions(page: Page) -> None:
    scan, _ = head()
    page.keyboard.press("m")
    page.keyboard.press("4")
    for key, plane, index in (("c", "coronal", 60), ("s", "sagittal", 54)):
        page.keyboard.press(key)
        page.wait_for_selector(f"canvas.image[data-here=true][data-painted^='{plane}']")
        here = int(page.get_attribute("canvas.image", "data-painted").split()[1])
        for _ in range(abs(index - here)):
            page.keyboard.press("ArrowDown" if index > here else "ArrowUp")
        wait_for_slice(page, index, plane, "bone")
        lines = scan.hu[::-1, index] if plane == "coronal" else scan.hu[::-1, :, index]
        pixels, scale, x0, y0 = picture(page)
        # In the middle of each slice the picture is that slice: head up, 5 mm from one to the next.
        for row, line in enumerate(to_grey(lines, 600, 2800)):
            columns = np.arange(4, len(line) - 4, 5)
            sx = np.floor(x0 + (columns + 0.5) * PIXEL_MM * scale).astype(int)
            sy = int(y0 + (row + 0.5) * SLICE_MM * scale)
            flat = np.abs(np.diff(line.astype(int)))[columns[:, None] + [-1, 0]].max(axis=1) < 4
            assert np.abs(pixels[sy, sx, 0].astype(int) - line[columns])[flat].max() < 22, (plane, row)


def test_fill_lies_on_the_mask_in_the_colours_of_types(page: Page) -> None:
    _, mask = head()
    page.get_by_role("button", name="Fill", exact=True).click()
    page.get_by_title("Opacity").fill("1")
    seen: set[int] = set()
    for index in (4, 9):
        jump(page, index)
        page.wait_for_timeout(200)
        pixels, scale, x0, y0 = picture(page)
        sx, sy, _, _ = screen_points(scale, x0, y0, (ROWS, COLUMNS), PIXEL_MM)
        rows, columns = np.indices((ROWS, COLUMNS))[:, 1:-1:3, 1:-1:3].reshape(2, -1)
        codes, shown = mask[index, rows, columns], pixels[sy, sx, :3]
        is_grey = (shown == shown[:, :1]).all(axis=1)
        assert (is_grey == (codes == 0)).all()
        for name, code in CODES.items():
            assert (shown[codes == code] == COLOURS[name]).all(), name
        seen |= set(np.unique(codes).tolist())
    assert seen == {0, BALL, CRESCENT}


def jump(page: Page, index: int) -> None:
    """Scrolls to an axial slice by keys."""
    page.locator("h1").click()
    here = int(page.get_attribute("canvas.image", "data-painted").split()[1])
    for _ in range(abs(index - here)):
        page.keyboard.press("ArrowUp" if index > here else "ArrowDown")
    wait_for_slice(page, index)


def test_wheel_keys_and_bar_scroll_and_the_address_remembers(page: Page) -> None:
    box = page.locator("canvas.marks").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, 120)  # toward the reader: down, as the bar shows it
    wait_for_slice(page, 3)
    page.keyboard.press("Home")
    wait_for_slice(page, SLICES - 1)
    page.keyboard.press("End")
    wait_for_slice(page, 0)
    page.keyboard.press("PageUp")
    wait_for_slice(page, 5)
    bar = page.get_by_role("slider", name="Slices")
    area = bar.bounding_box()
    bar.click(position={"x": 10, "y": area["height"] * (SLICES - 8 - 0.5) / SLICES})
    wait_for_slice(page, 8)
    assert bar.get_attribute("aria-valuenow") == "9"
    page.keyboard.press("4")
    until(page, "location.search.includes('slice=9') && location.search.includes('window=bone')")
    page.reload()
    wait_for_slice(page, 8, window="bone")


def test_the_bar_shows_where_the_bleeding_is(page: Page) -> None:
    _, mask = head()
    script = """() => { const c = document.querySelector('[role=slider]'); const n = 12, h = c.height / n
        const d = c.getContext('2d'); return Array.from({length: n}, (_, i) =>
        [...d.getImageData(3, Math.floor((n - 1 - i + 0.5) * h), 1, 1).data.slice(0, 3)]) }"""
    shown = page.evaluate(script)
    for index in range(SLICES):
        codes = sorted(set(np.unique(mask[index])) - {0})
        names = [name for name, code in CODES.items() if code in codes[:1]]
        if names:
            assert tuple(shown[index]) == COLOURS[names[0]], index
        else:
            assert tuple(shown[index]) not in COLOURS.values(), index


def test_volumes_are_read(page: Page) -> None:
    scan, mask = head()
    assert page.locator("[data-total]").inner_text() == f"{scan.volume_ml(mask):.1f} mL"
    text = page.locator("aside").inner_text()
    for name, code in (("Intraparenchymal", BALL), ("Subdural", CRESCENT)):
        assert re.search(rf"{name}\s+{scan.volume_ml(mask == code):.1f} mL", text), text


def test_right_drag_changes_the_window_and_the_pointer_reads_hu(page: Page) -> None:
    scan, _ = head()
    _, scale, x0, y0 = picture(page)
    box = page.locator("canvas.marks").bounding_box()
    row, column = 60, 54
    at = box["x"] + x0 + (column + 0.5) * PIXEL_MM * scale, box["y"] + y0 + (row + 0.5) * PIXEL_MM * scale
    page.mouse.move(*at)
    said = page.locator("[data-hover]")
    until(page, "document.querySelector('[data-hover]').textContent.includes('HU')")
    assert said.inner_text().split() == [str(scan.hu[4, row, column]), "HU", "IPH"]
    page.mouse.down(button="right")
    page.mouse.move(at[0] + 40, at[1] + 20, steps=4)
    page.mouse.up(button="right")
    wait_for_slice(page, 4, window="45,91")


def test_ctrl_wheel_zooms_where_the_pointer_is(page: Page) -> None:
    _, scale, x0, y0 = picture(page)
    box = page.locator("canvas.marks").bounding_box()
    sx, sy = 300.0, 200.0
    page.mouse.move(box["x"] + sx, box["y"] + sy)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    until(page, f"+document.querySelector('canvas.image').dataset.camera.split(' ')[0] > {scale * 1.5}")
    _, zoomed, x1, y1 = picture(page)
    assert (sx - x1) / zoomed == pytest.approx((sx - x0) / scale, abs=0.3)
    assert (sy - y1) / zoomed == pytest.approx((sy - y0) / scale, abs=0.3)
    page.keyboard.press("0")
    until(page, f"+document.querySelector('canvas.image').dataset.camera.split(' ')[0] === {scale}")


def screen(page: Page, row: float, column: float) -> tuple[float, float]:
    """Where the middle of a pixel of the image is in the window."""
    scale, x0, y0 = map(float, page.get_attribute("canvas.image", "data-camera").split())
    box = page.locator("canvas.marks").bounding_box()
    return box["x"] + x0 + (column + 0.5) * PIXEL_MM * scale, box["y"] + y0 + (row + 0.5) * PIXEL_MM * scale


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Presses at the first pixel (row, column), moves through the others and releases."""
    page.mouse.move(*screen(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*screen(page, *point), steps=5)
    page.mouse.up()


def test_the_help_lists_the_keys(page: Page) -> None:
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog")
    assert "Probability map" in dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="hidden")


def test_fingers_scroll_and_pinch(app: AppServer, browser: Visitor) -> None:
    page = browser.page(app)
    [study] = [one["id"] for one in app.ask("/studies")["studies"] if one["source"] != "DICOM"]
    page.goto(f"{app.url}/studies/{study}?slice=5")
    wait_for_slice(page, 4)
    touches = page.context.new_cdp_session(page)
    touches.send("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})

    def touch(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        touches.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    x, y = screen(page, 48, 40)
    touch("touchStart", (x, y))
    for step in range(1, 6):
        touch("touchMove", (x, y + 10 * step))
    touch("touchEnd")
    page.wait_for_selector("canvas.image[data-painted^='axial 0'], canvas.image[data-painted^='axial 1 ']")
    _, scale, _, _ = picture(page)
    touch("touchStart", (x - 40, y), (x + 40, y))
    for step in range(1, 6):
        touch("touchMove", (x - 40 - 8 * step, y), (x + 40 + 8 * step, y))
    touch("touchEnd")
    until(page, f"+document.querySelector('canvas.image').dataset.camera.split(' ')[0] > {scale * 1.7}")
    page.context.close()
    browser.check()


def test_the_earlier_scan_moves_along(app: AppServer, browser: Visitor) -> None:
    """Two scans of one patient, the earlier one with two slices fewer at the bottom."""
    folder = app.folder.parent / "patient"
    scan, _ = head()
    hu = scan.hu.copy()
    hu[-1, 0, 0] = -950  # not the scan that is there already
    for name, first, time_of_day in (("before", 2, "081500"), ("after", 0, "201500")):
        part = even_scan(hu[first:], PIXEL_MM, SLICE_MM)
        files = write_series(part, folder / name, patient="P77")
        study, series = generate_uid(), generate_uid()
        for file in files:
            header = pydicom.dcmread(file)
            header.StudyInstanceUID, header.SeriesInstanceUID = study, series
            header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
            for event in ("Study", "Series", "Acquisition", "Content"):
                setattr(header, f"{event}Date", "20250301")
                setattr(header, f"{event}Time", time_of_day)
            header.save_as(file)
    job = app.ask("/imports", "POST", {"folder": str(folder), "predict": True})
    app.until(f"/jobs/{job['id']}", lambda now: now["state"] == "done")
    app.until("/studies?stage=predicted", lambda now: now["total"] == 2)
    [after] = [one for one in app.ask("/studies")["studies"] if one["slices"] == SLICES and one["source"] == "DICOM"]
    page = browser.page(app)
    page.goto(f"{app.url}/studies/{after['id']}?slice=9")
    wait_for_slice(page, 8)
    page.keyboard.press("y")
    page.get_by_text("12 h earlier").first.wait_for()
    [earlier] = app.ask(f"/studies/{after['id']}")["earlier"]
    sign = "+" if earlier["change_ml"] > 0 else ""
    page.get_by_text(f"change {sign}{earlier['change_ml']:.1f} mL").wait_for()
    # A prediction's remarks repeat the scan's warnings; the page says each once.
    study = app.ask(f"/studies/{after['id']}")
    for text in study["remarks"]:
        assert page.get_by_text(text, exact=True).count() == 1
    beside = "document.querySelectorAll('canvas.image')[1]?.dataset.painted.split(' ')[1]"
    until(page, f"{beside} === '6'")
    page.keyboard.press("ArrowUp")
    until(page, f"{beside} === '7'")
    box = page.get_by_role("group", name="Slices of the earlier scan").bounding_box()
    page.mouse.move(box["x"] + 100, box["y"] + 100)
    page.mouse.wheel(0, 120)
    until(page, f"{beside} === '6'")
    wait_for_slice(page, 9)
    page.keyboard.press("y")
    until(page, "document.querySelectorAll('canvas.image').length === 1")
    page.context.close()
    browser.check()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(app: AppServer, browser: Visitor, theme: str) -> None:
    page = browser.page(app, theme=theme)
    [study] = [one["id"] for one in app.ask("/studies")["studies"] if one["source"] != "DICOM"]
    page.goto(f"{app.url}/studies/{study}")
    page.wait_for_selector("canvas.image[data-here=true]")
    assert axe(page) == []
    page.keyboard.press("b")
    page.wait_for_selector("p[data-draft]")
    assert axe(page) == []
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    assert axe(page) == []
    page.context.close()
    browser.check()


def test_a_reader_who_may_only_look_is_offered_nothing_else(app: AppServer, browser: Visitor) -> None:
    page = browser.page(app)
    page.context.clear_cookies()
    page.goto(f"{app.url}/open?token={(app.folder / 'read-token').read_text('utf-8').strip()}")
    [study] = [one["id"] for one in app.ask("/studies")["studies"] if one["source"] != "DICOM"]
    page.goto(f"{app.url}/studies/{study}")
    page.wait_for_selector("canvas.image[data-here=true]")
    assert page.get_by_role("button", name="Ruler").count() == 1
    assert page.get_by_role("button", name="Brush").count() == 0
    assert page.get_by_role("button", name="Agree").is_disabled()
    for key in ("b", "w", "Control+s"):
        page.keyboard.press(key)
    page.keyboard.press("r")
    drag(page, (30, 20), (30, 50))
    until(page, "document.querySelectorAll('aside li').length > 0")
    assert app.ask(f"/studies/{study}")["state"] == "unread"
    page.context.close()
    browser.check()
