"""Teaching in Chromium, against the real server: start, watch, stop, go on, compare, use."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny
from app_browser import app_server, axe, visitor
from hemotorch.io import nifti

pytest.importorskip("fastapi")
pytest.importorskip("playwright.sync_api")
from playwright.sync_api import expect

LONG_MS = 600_000


@pytest.mark.long
def test_a_model_is_taught_watched_compared_and_used(tmp_path: Path, tiny_run: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for seed in range(20, 26):
        nifti.write_scan(tiny.head(seed, bleeding=seed != 23)[0], scans / f"head{seed}.nii.gz")
    arguments = ("--allow", str(scans), "--model", str(tiny_run))
    with app_server(tmp_path / "workspace", *arguments) as server, visitor() as browser:
        server.ask("/imports", "POST", {"folder": str(scans), "predict": True})
        server.until("/studies?stage=predicted", lambda page: page["total"] == 6)
        page = browser.page(server)
        page.goto(f"{server.url}/teach")
        expect(page.get_by_text("None is corrected or agreed with yet")).to_be_visible()
        for study in server.ask("/studies")["studies"]:
            server.ask(f"/studies/{study['id']}", "PATCH", {"state": "agreed"})
        page.reload()
        expect(page.get_by_text("All (6 / 6)")).to_be_visible()
        page.get_by_role("checkbox", name="head20").uncheck()
        expect(page.get_by_text("All (5 / 6)")).to_be_visible()
        page.get_by_label("All (5 / 6)").check()
        page.get_by_label("Name of the new model").fill("not allowed!")
        expect(page.get_by_role("button", name="Start teaching")).to_be_disabled()
        page.get_by_label("Name of the new model").fill("taught")
        page.get_by_role("spinbutton", name="Epochs").fill("3")
        expect(page.get_by_text("held out for the comparison")).to_be_visible(timeout=LONG_MS)
        page.get_by_role("button", name="Start teaching").click()
        page.wait_for_url("**/teach/taught")

        # Stopped in the middle, and gone on with, as a person does it.
        expect(page.get_by_text("Epoch 1 of 3").or_(page.get_by_text("Epoch 2 of 3"))).to_be_visible(timeout=LONG_MS)
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("button", name="Go on").click(timeout=LONG_MS)
        expect(page.get_by_text("Epoch 3 of 3")).to_be_visible(timeout=LONG_MS)
        expect(page.locator(".tag").get_by_text("Done")).to_be_visible(timeout=LONG_MS)

        training = server.ask("/trainings/taught")
        assert [point["epoch"] for point in training["points"]] == [1, 2, 3]
        expect(page.get_by_role("img", name="Loss")).to_be_visible()
        pictures = page.locator("figure img")
        expect(pictures).to_have_count(len(training["slices"]))
        expect(page.locator(".strip")).to_have_count(len({(one["study"], one["slice"]) for one in training["slices"]}))
        loaded = "(all) => all.filter((img) => img.complete && img.naturalWidth > 0).length"
        assert pictures.evaluate_all(loaded) >= 2
        expect(page.get_by_role("row").filter(has_text=training["comparison"][0]["metric"])).to_be_visible()
        expect(page.get_by_text(training["note"])).to_be_visible()
        assert axe(page) == []

        old = server.ask("/session")["model"]
        page.get_by_role("button", name="Use this model").click()
        assert server.ask("/session")["model"] == old
        page.get_by_role("dialog").get_by_role("button", name="Use this model").click()
        expect(page.get_by_text("In use")).to_be_visible()
        assert server.ask("/session")["model"] == training["model"] != old
        page.screenshot(path=tmp_path / "taught.png", full_page=True)
        browser.check()
