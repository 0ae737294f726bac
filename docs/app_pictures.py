"""The pictures of docs/app.md, from the running app: docs/img/app-worklist.jpg, app-scan.jpg and app-dark.jpg.

    python docs/app_pictures.py DATA

DATA: a folder with head-ct-nifti, head-ct-ge, head-ct-painted and head-ct-painted-2 (neurolabusc/dcm_qa_ct, BSD-2). It
takes some minutes: the scans are outlined first, by the model in the box. Needs `hemotorch[app]`, playwright, Chromium.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parent / "img"
SCANS = ("head-ct-painted", "head-ct-painted-2", "head-ct-ge", "head-ct-nifti")
SIZE = {"width": 1280, "height": 800}
SHOWN = "painted1"  #: the scan that is opened
SECONDS = 1200


def started(folder: Path, data: Path) -> tuple[subprocess.Popen[str], str]:
    """The server and the link that signs in."""
    command = [sys.executable, "-m", "hemotorch.cli", "serve", str(folder), "--no-browser", "--allow", str(data)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if link := re.search(r"http://\S+/open\?token=\S+", line):
            return server, link[0]
    sys.exit("hemotorch serve ended before it began")


def asked(link: str, path: str, body: object = None) -> Any:
    """The JSON that a path below /api/v1 gives."""
    url, token = link.split("/open?token=")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/api/v1{path}", data, headers), timeout=60) as answer:
        return json.load(answer)


def filled(link: str, data: Path) -> None:
    """Adds the scans and waits until all are outlined."""
    for name in SCANS:
        asked(link, "/imports", {"folder": str(data / name), "predict": True})
    end = time.monotonic() + SECONDS
    while asked(link, "/jobs?state=waiting")["jobs"] or asked(link, "/jobs?state=running")["jobs"]:
        if time.monotonic() > end:
            sys.exit(f"not outlined after {SECONDS} s")
        time.sleep(2)


def save(page: Page, name: str) -> None:
    """A picture of what the window shows."""
    page.wait_for_timeout(2500)
    with tempfile.TemporaryDirectory() as folder:
        page.screenshot(path=f"{folder}/page.png")
        Image.open(f"{folder}/page.png").convert("RGB").save(OUT / name, quality=88, optimize=True)


def main() -> None:
    """Makes the pictures."""
    data = Path(sys.argv[1]).resolve()
    browser_file = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server, link = started(Path(folder) / "workspace", data)
        try:
            filled(link, data)
            browser = playwright.chromium.launch(
                executable_path=browser_file, args=["--no-sandbox", "--disable-gpu", "--disable-webgl"]
            )
            for theme, language in (("light", "en-GB"), ("dark", "uk-UA")):
                context = browser.new_context(viewport=SIZE, color_scheme=theme, locale=language)  # type: ignore[arg-type]
                page = context.new_page()
                page.goto(link)
                page.wait_for_selector("tbody a.open")
                save(page, "app-worklist.jpg" if theme == "light" else "app-dark.jpg")
                if theme == "light":
                    page.get_by_role("link", name=SHOWN).click()
                    page.wait_for_selector("canvas")
                    save(page, "app-scan.jpg")
                context.close()
            browser.close()
        finally:
            server.terminate()
            server.wait(60)


if __name__ == "__main__":
    main()
