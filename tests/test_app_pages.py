"""The app in Chromium, against the real server: adding, the worklist, jobs, languages, themes, accessibility."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import tiny
from app_browser import AppServer, Visitor, app_server, axe, drop, visitor
from conftest import require
from hemotorch.io import nifti
from hemotorch.io.dicom.write import write_series

require("fastapi")
require("playwright.sync_api")
from playwright.sync_api import Page, Route, expect  # noqa: E402  it may be missing

PAGES = ("/", "/jobs", "/teach", "/models", "/recipes", "/audit", "/help", "/nowhere")
SLOW_MS = 240_000  #: other work may be on the machine


@pytest.fixture(scope="module")
def browser() -> Iterator[Visitor]:
    with visitor() as found:
        yield found


@pytest.fixture(autouse=True)
def closed(browser: Visitor) -> Iterator[None]:
    """No page stays open after its test, and says nothing in the next one."""
    yield
    for context in browser.browser.contexts:
        context.close()
    browser.said.clear()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """series.zip: a DICOM series. server/: four NIfTI files. broken.nii.gz: no scan."""
    folder = tmp_path_factory.mktemp("scans")
    write_series(tiny.head(1)[0], folder / "series")
    shutil.make_archive(str(folder / "series"), "zip", folder / "series")
    (folder / "server").mkdir()
    for seed in range(2, 6):
        nifti.write_scan(tiny.head(seed, bleeding=seed != 3)[0], folder / "server" / f"head{seed}.nii.gz")
    (folder / "broken.nii.gz").write_text("no scan", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, scans: Path) -> Iterator[AppServer]:
    """An empty workspace whose server may read scans/server."""
    with app_server(tmp_path_factory.mktemp("app") / "workspace", "--allow", str(scans / "server")) as running:
        yield running


@pytest.fixture(scope="module")
def filled(server: AppServer, scans: Path) -> AppServer:
    """The same with the four heads of the server's folder, all outlined."""
    server.ask("/imports", "POST", {"folder": str(scans / "server"), "predict": True})
    server.until("/studies?stage=predicted", lambda page: page["total"] >= 4)
    return server


def rows(page: Page) -> list[str]:
    """The scans' names, from top to bottom."""
    return page.locator("tbody a.open").all_inner_texts()


def test_a_dropped_zip_is_outlined_and_a_broken_file_is_refused(
    server: AppServer, browser: Visitor, scans: Path
) -> None:
    page = browser.page(server)
    expect(page.get_by_role("heading", name="Add your first scan")).to_be_visible()
    drop(page, scans / "series.zip", scans / "broken.nii.gz")
    upload = page.get_by_role("region", name="Being added")
    expect(upload.get_by_role("status")).to_have_text("Done, but not all of it was taken", timeout=SLOW_MS)
    expect(upload.get_by_role("listitem").filter(has_text="broken.nii.gz")).to_be_visible()
    row = page.get_by_role("row").filter(has_text="DICOM")
    expect(row).to_have_count(1)
    expect(row.get_by_text("mL").first).to_be_visible(timeout=SLOW_MS)
    study = server.until("/studies?query=&limit=1", lambda answer: answer["studies"][0]["stage"] == "predicted")[
        "studies"
    ][0]
    expect(row).to_contain_text(f"{study['volume_ml']['total']:.1f} mL")
    assert page.evaluate("document.title") == "Worklist – hemotorch"
    row.locator("a.open").click()
    assert page.url == f"{server.url}/studies/{study['id']}"
    browser.check()


def test_a_dropped_folder_keeps_its_paths(server: AppServer, browser: Visitor, scans: Path) -> None:
    page = browser.page(server)
    drop(page, scans / "series")
    upload = page.get_by_role("region", name="Being added")
    expect(upload.get_by_role("status")).to_have_text("Added", timeout=SLOW_MS)
    expect(upload.locator("strong")).to_have_text("series")
    # The same series may have come in the zip: nothing is doubled.
    expect(page.get_by_role("row").filter(has_text="DICOM")).to_have_count(1)
    browser.check()


def test_an_upload_goes_on_after_the_connection_was_cut(server: AppServer, browser: Visitor, scans: Path) -> None:
    page = browser.page(server)
    cut: list[str] = []

    def cut_twice(route: Route) -> None:
        if len(cut) >= 2:
            return route.continue_()
        cut.append(route.request.method)
        return route.abort("connectionreset")

    page.route("**/uploads/**/series.zip*", cut_twice)
    page.locator("input[type=file]").first.set_input_files(scans / "series.zip")
    upload = page.get_by_role("region", name="Being added")
    expect(upload.get_by_role("status")).to_have_text("Added", timeout=SLOW_MS)
    assert cut == ["PUT", "PUT"]
    expect(page.get_by_role("row").filter(has_text="DICOM")).to_have_count(1)
    assert all("/uploads/" in text for text in browser.said), browser.said
    browser.said.clear()


def test_whoever_may_only_look_is_offered_nothing_else(filled: AppServer, browser: Visitor, scans: Path) -> None:
    token = (filled.folder / "read-token").read_text(encoding="utf-8").strip()
    page = browser.page(filled, token=token)
    expect(page.locator("tbody a.open").first).to_be_visible()
    expect(page.get_by_role("banner")).to_contain_text("Read only")
    for name in ("Add files", "Outline what is new", "Delete"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("checkbox", name="Select")).to_have_count(0)
    drop(page, scans / "series.zip")
    expect(page.get_by_role("region", name="Being added")).to_have_count(0)
    browser.check()


@pytest.mark.long
def test_a_server_that_comes_back_is_followed_again(tmp_path: Path, browser: Visitor, scans: Path) -> None:
    allowed = ("--allow", str(scans / "server"))
    with app_server(tmp_path / "workspace", *allowed) as first:
        page = browser.page(first)
        expect(page.get_by_role("heading", name="Add your first scan")).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="No connection")).to_be_visible()
    with app_server(tmp_path / "workspace", *allowed, port=first.port) as second:
        expect(page.get_by_role("status").filter(has_text="No connection")).to_be_hidden()
        second.ask("/imports", "POST", {"folder": str(scans / "server"), "predict": False})
        expect(page.locator("tbody a.open")).to_have_count(4, timeout=SLOW_MS)


def test_a_folder_of_the_server_is_added_and_watched(filled: AppServer, browser: Visitor, scans: Path) -> None:
    page = browser.page(filled)
    page.get_by_role("button", name="Folder on the server").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("head2.nii.gz")).to_be_visible()
    dialog.get_by_role("button", name="Keep watching it").click()
    expect(dialog.get_by_role("heading", name="Watched folders")).to_be_visible()
    assert [watch["folder"] for watch in filled.ask("/watches")] == [str(scans / "server")]
    dialog.get_by_role("button", name="Stop watching").click()
    expect(dialog.get_by_role("heading", name="Watched folders")).to_be_hidden()
    assert filled.ask("/watches") == []
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    browser.check()


def test_search_sort_and_filter(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.wait_for_selector("tbody a.open")
    page.get_by_role("searchbox").fill("head")
    expect(page.locator("tbody a.open")).to_have_count(4)
    page.get_by_role("button", name="Scan").click()
    expect(page.locator("tbody a.open")).to_have_text([f"head{seed}.nii.gz" for seed in range(2, 6)])
    page.get_by_role("button", name="Scan").click()
    expect(page.locator("tbody a.open").first).to_have_text("head5.nii.gz")
    page.get_by_role("button", name="Bleeding").click()
    volumes = [study["name"] for study in filled.ask("/studies?query=head&sort=ml")["studies"]]
    expect(page.locator("tbody a.open")).to_have_text(volumes)
    assert "sort=ml" in page.url and "query=head" in page.url
    page.reload()
    expect(page.locator("tbody a.open")).to_have_text(volumes)
    page.get_by_role("combobox", name="Bleeding").select_option("none")
    wanted = filled.ask("/studies?query=head&bleeding=none")["total"]
    expect(page.locator("tbody a.open")).to_have_count(wanted)
    page.get_by_role("searchbox").fill("no such scan")
    expect(page.get_by_text("No study matches")).to_be_visible()
    page.get_by_role("button", name="Clear filters").first.click()
    expect(page.locator("tbody a.open")).to_have_count(filled.ask("/studies")["total"])
    browser.check()


def test_by_keyboard_alone(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.wait_for_selector("tbody a.open")
    page.keyboard.press("/")
    page.keyboard.type("head")
    expect(page.locator("tbody a.open")).to_have_count(4)
    page.keyboard.press("Tab")
    page.locator("h1").focus()
    names = rows(page)
    page.keyboard.press("ArrowDown")
    expect(page.locator("a.open:focus")).to_have_text(names[0])
    page.keyboard.press("ArrowDown")
    page.keyboard.press("j")
    expect(page.locator("a.open:focus")).to_have_text(names[2])
    page.keyboard.press("Home")
    page.keyboard.press("x")
    expect(page.get_by_text("1 selected")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("a.open:focus")).to_have_text(names[-1])
    page.keyboard.press("Enter")
    page.wait_for_url("**/studies/*")
    page.go_back()
    expect(page.locator("tbody a.open")).to_have_count(4)
    browser.check()


def test_the_list_follows_what_another_reader_does(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    study = filled.ask("/studies?query=head4")["studies"][0]
    row = page.get_by_role("row").filter(has_text="head4")
    filled.ask(f"/studies/{study['id']}", "PATCH", {"state": "unread"})
    expect(row).to_contain_text("Unread")
    filled.ask(f"/studies/{study['id']}", "PATCH", {"state": "unsure"})
    expect(row).to_contain_text("Not sure")
    browser.check()


def test_deleting_asks_first(filled: AppServer, browser: Visitor, scans: Path) -> None:
    page = browser.page(filled)
    total = filled.ask("/studies")["total"]
    page.get_by_label("Select head5.nii.gz").check()
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Delete 1 study")
    dialog.get_by_role("button", name="Cancel").click()
    assert filled.ask("/studies")["total"] == total
    page.get_by_role("button", name="Delete").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.get_by_label("Select head5.nii.gz")).to_have_count(0)
    assert filled.ask("/studies")["total"] == total - 1
    filled.ask("/imports", "POST", {"folder": str(scans / "server"), "predict": True})
    filled.until("/studies?stage=predicted", lambda answer: answer["total"] == total)
    browser.check()


def test_csv_has_what_the_list_shows(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.get_by_role("searchbox").fill("head2")
    expect(page.locator("tbody a.open")).to_have_count(1)
    with page.expect_download() as download:
        page.get_by_role("link", name="Table (CSV)").click()
    table = Path(download.value.path()).read_text(encoding="utf-8-sig")
    assert "head2.nii.gz" in table and "head3.nii.gz" not in table


def test_jobs_have_their_state_and_log(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.get_by_role("link", name="Jobs").click()
    first = page.get_by_role("listitem").first
    expect(first).to_contain_text("Done")
    first.get_by_role("button", name="Details").click()
    expect(first.locator("pre")).not_to_contain_text("Loading")
    page.get_by_label("State").select_option("failed")
    expect(page.get_by_text("No such job")).to_be_visible()
    browser.check()


def test_both_languages_and_both_themes(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled, locale="uk-UA")
    expect(page.locator("h1")).to_have_text("Список")
    assert page.evaluate("document.documentElement.lang") == "uk"
    expect(page.get_by_role("status").filter(has_text="досліджен")).to_be_visible()
    page.locator("header summary").last.click()
    page.get_by_label("Мова").select_option("en")
    expect(page.locator("h1")).to_have_text("Worklist")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_label("Theme").select_option("dark")
    assert page.evaluate(ground) != light
    page.reload()
    expect(page.locator("h1")).to_have_text("Worklist")
    assert page.evaluate(ground) != light
    browser.check()


def test_a_name_is_kept(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.locator("header summary").last.click()
    page.get_by_label("Your name").fill("Dr. Їжак")
    page.get_by_label("Your name").press("Tab")
    expect(page.locator("header summary").last).to_contain_text("Dr. Їжак")
    page.reload()
    expect(page.locator("header summary").last).to_contain_text("Dr. Їжак")
    browser.check()


def test_a_recipe_is_changed_within_its_bounds(filled: AppServer, browser: Visitor) -> None:
    page = browser.page(filled)
    page.goto(f"{filled.url}/recipes")
    page.get_by_label("Begin with").select_option("fast")
    pixel = page.get_by_label("pixel_mm")
    expect(pixel).to_have_value("1.2")
    pixel.fill("50")
    pixel.press("Tab")
    expect(page.get_by_role("alert")).to_contain_text("number from 0 to 20 mm")
    pixel.fill("2")
    pixel.press("Tab")
    expect(page.get_by_text("1 changed")).to_be_visible()
    expect(page.get_by_role("alert")).to_have_count(0)
    page.get_by_text("As a file").click()
    expect(page.locator("pre")).to_contain_text("pixel_mm = 2.0")
    browser.check()


def test_without_a_token_nothing_is_shown(filled: AppServer, browser: Visitor) -> None:
    page = browser.browser.new_context().new_page()
    page.goto(filled.url)
    expect(page.get_by_role("heading", name="You are not signed in")).to_be_visible()
    expect(page.locator("tbody")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(filled: AppServer, browser: Visitor, theme: str) -> None:
    page = browser.page(filled, theme=theme)
    found = {}
    study = filled.ask("/studies?query=head2")["studies"][0]["id"]
    for path in (*PAGES, f"/studies/{study}"):
        page.goto(filled.url + path)
        page.wait_for_load_state("networkidle" if path == "/nowhere" else "load")
        page.wait_for_selector("h1")
        expect(page.get_by_text("Loading", exact=True)).to_have_count(0)
        if serious := axe(page):
            found[path] = serious
    page.goto(filled.url)
    page.get_by_role("button", name="Folder on the server").click()
    page.wait_for_selector("dialog[open]")
    if serious := axe(page):
        found["dialog"] = serious
    assert found == {}
    browser.check()
