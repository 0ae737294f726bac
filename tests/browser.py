"""Pages in a real browser, without a window: what it shows, and what a page's script did."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")


def program() -> str:
    """The browser; skips the test if there is none, or fails if CI=true, where there must be one."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no Chromium here: apt-get install chromium")
        pytest.skip("no Chromium here")
    return found


def _chromium(folder: Path, *arguments: str) -> str:
    """What the browser prints."""
    return _run(folder, *arguments).stdout


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the browser offline."""
    command = [program(), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars", "--virtual-time-budget=5000"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def screenshot(page: Path, size: tuple[int, int]) -> np.ndarray:
    """(height, width, 3) uint8: what the browser shows of a page in a window of (width, height)."""
    picture = page.with_suffix(".png")
    width, height = size
    _chromium(page.parent, f"--screenshot={picture}", f"--window-size={width},{height}", page.as_uri())
    return np.asarray(Image.open(picture).convert("RGB"))


def text_of(page: Path, element: str) -> str:
    """The text of the element with that id, after the page's scripts have run."""
    html = _chromium(page.parent, "--dump-dom", page.as_uri())
    match = re.search(rf'id="{element}"[^>]*>(.*?)</', html, re.DOTALL)
    assert match, f"no element {element}"
    return unescape(match[1])


def dom_of(page: Path) -> str:
    """The page's HTML after its scripts have run; fails if the browser's console says anything."""
    done = _run(page.parent, "--enable-logging=stderr", "--dump-dom", page.as_uri())
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not said, said
    return done.stdout


def driven(page: Path, script: str) -> Path:
    """A copy of a page that also runs a script, which its own policy would forbid; the script fills `said`."""
    html = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text(encoding="utf-8"))
    driver = f"{{ const said = []; {script}; document.getElementById('result').textContent = JSON.stringify(said) }}"
    copy = page.with_name(f"driven-{page.name}")
    copy.write_text(html.replace("</main>", f"<pre id=result></pre><script>{driver}</script></main>"), encoding="utf-8")
    return copy


def sheets_of(page: Path) -> int:
    """On how many sheets the browser prints a page."""
    pdf = page.with_suffix(".pdf")
    _chromium(page.parent, "--no-pdf-header-footer", f"--print-to-pdf={pdf}", page.as_uri())
    return len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes()))
