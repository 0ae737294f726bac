"""How fast the app's viewer is in Chromium without a GPU.

    python benchmarks/app_viewer.py [--repeats 5] [--json FILE]

A scan of 40 slices of 512 x 512 pixels with bleeding in it is put into an empty workspace, and `hemotorch serve` shows
it. Measured in the page itself, each from the event to the canvas: from the click in the worklist to the first slice
and to the last one fetched; slices a second while scrolling as fast as they are painted; a change of the window; a
piece of a brush stroke of 8 mm. The machine's load is printed beside the times, since they depend on it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from hemotorch.io import nifti
from hemotorch.labels import CODES
from hemotorch.scan import Scan, even_scan

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from app_browser import AppServer, app_server, visitor

SHAPE = (40, 512, 512)
AIMS = {"first_slice_s": 1.0, "whole_s": 3.0, "slices_per_s": 25.0, "window_ms": 50.0, "stroke_ms": 50.0}

#: In the page: waits for the end of a frame, in which what was asked for before it has been painted.
FRAME = "const frame = () => new Promise(done => requestAnimationFrame(() => setTimeout(done)));"
WAIT = FRAME + "const canvas = document.querySelector('canvas.image');"
KEY = "const press = key => window.dispatchEvent(new KeyboardEvent('keydown', {key, code: key, bubbles: true}));"

OPEN = (
    "async () => {"
    + FRAME
    + """
    const start = performance.now()
    document.querySelector('tbody a.open').click()
    let canvas = null
    while (!(canvas = document.querySelector('canvas.image')) || canvas.dataset.here !== 'true') await frame()
    const first = performance.now() - start
    while (canvas.dataset.whole !== 'true') await frame()
    return [first / 1000, (performance.now() - start) / 1000]
}"""
)

SCROLL = (
    "async () => {"
    + WAIT
    + KEY
    + """
    press('End')
    const start = performance.now()
    let painted = canvas.dataset.painted
    for (let slice = 0; slice < 38; slice++) {
        press('ArrowUp')
        while (canvas.dataset.painted === painted) await frame()
        painted = canvas.dataset.painted
    }
    return 38 / ((performance.now() - start) / 1000)
}"""
)

WINDOW = (
    "async () => {"
    + WAIT
    + KEY
    + """
    const times = []
    for (const key of ['Digit2', 'Digit4', 'Digit6', 'Digit1', 'Digit2', 'Digit1']) {
        const painted = canvas.dataset.painted
        const start = performance.now()
        press(key)
        while (canvas.dataset.painted === painted) await frame()
        times.push(performance.now() - start)
    }
    return times
}"""
)

STROKE = (
    "async () => {"
    + WAIT
    + """
    const marks = document.querySelector('canvas.marks')
    const box = marks.getBoundingClientRect()
    const send = (name, x, y, buttons) => marks.dispatchEvent(new PointerEvent(name, {clientX: box.left + x,
        clientY: box.top + y, pointerId: 1, pointerType: 'pen', buttons, button: 0, bubbles: true}))
    marks.setPointerCapture = () => {}
    const [x, y] = [box.width / 2 - 150, box.height / 2 - 100]
    send('pointerdown', x, y, 1)
    const times = []
    for (let step = 1; step < 60; step++) {
        const drawn = canvas.dataset.drawn
        const start = performance.now()
        send('pointermove', x + 5 * step, y + 40 * Math.sin(step / 6), 1)
        while (canvas.dataset.drawn === drawn) await frame()
        times.push(performance.now() - start)
    }
    send('pointerup', x, y, 0)
    return times
}"""
)


def scan_with_bleeding() -> tuple[Scan, np.ndarray]:
    """A head of 40 slices of 5 mm with a ball of blood and noise of 5 HU, and its mask."""
    rng = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE, sparse=True)
    radius = np.hypot((y - 256) / 220, (x - 256) / 180)
    hu = np.where(radius < 0.88, 32, np.where(radius < 1, 1000, -1000)) + rng.normal(0, 5, SHAPE)
    ball = np.hypot(np.hypot(y - 300, x - 200) / 50, (z - 20) / 5) < 1
    hu[ball] += 36
    return even_scan(np.rint(hu).astype(np.int16), 0.45, 5.0), np.where(ball, CODES["intraparenchymal"], 0).astype(
        np.uint8
    )


def measure(app: AppServer, repeats: int) -> dict[str, list[float]]:
    """Every repeat is a reader of its own, so that nothing is in the browser's cache."""
    found: dict[str, list[float]] = {key: [] for key in AIMS}
    with visitor() as browser:
        for _ in range(repeats):
            page = browser.page(app, (1280, 800))
            page.wait_for_selector("tbody a.open")
            page.wait_for_timeout(500)
            first, whole = page.evaluate(OPEN)
            found["first_slice_s"].append(first)
            found["whole_s"].append(whole)
            page.wait_for_timeout(500)
            found["slices_per_s"].append(page.evaluate(SCROLL))
            found["window_ms"] += page.evaluate(WINDOW)
            page.keyboard.press("b")
            page.wait_for_selector("p[data-draft]")
            found["stroke_ms"] += page.evaluate(STROKE)
            page.evaluate(
                "fetch(location.pathname.replace('/studies', '/api/v1/studies') + '/draft', {method: 'DELETE'})"
            )
            page.context.close()
        browser.check()
    return found


def report(found: dict[str, list[float]]) -> dict[str, Any]:
    """Median and worst of each, and its aim."""
    rows = {}
    for key, values in found.items():
        worst = min(values) if key == "slices_per_s" else max(values)
        rows[key] = {"median": round(statistics.median(values), 3), "worst": round(worst, 3), "aim": AIMS[key]}
    return rows


def main() -> None:
    """Prints a line for each measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--json", metavar="FILE", help="also writes the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "scans").mkdir()
        scan, mask = scan_with_bleeding()
        nifti.write_scan(scan, folder / "scans" / "head.nii.gz")
        nifti.write_mask(scan, mask, folder / "scans" / "head_mask.nii.gz")
        with app_server(folder / "workspace", "--allow", str(folder / "scans")) as app:
            app.ask("/imports", "POST", {"folder": str(folder / "scans"), "predict": False})
            app.until("/studies", lambda answer: answer["total"] == 1)
            rows = report(measure(app, arguments.repeats))
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}, {arguments.repeats} repeats, {' x '.join(map(str, SHAPE))} voxels")
    for key, row in rows.items():
        print(f"{key:16} median {row['median']:8.2f}   worst {row['worst']:8.2f}   aim {row['aim']:g}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"load": load, **rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
