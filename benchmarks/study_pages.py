"""How long a study's page takes to write, and the list of studies to write, open and sort in Chromium.

    python benchmarks/study_pages.py [--slices 32 300] [--studies 10000]

The page is that of a synthetic head of 512 x 512 pixels with typed bleeding. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hemotorch.inference.predictor import volumes_ml
from hemotorch.labels import TYPES
from hemotorch.report.index_page import IndexDoubt, IndexRow, index_page
from hemotorch.report.study_page import StudyText, study_page
from hemotorch.report.study_pictures import thumbnail
from hemotorch.scan import Prediction, even_scan
from hemotorch.task import TYPED

KEYS = ("name", "total", "doubts", "subdural")  #: columns to sort by


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[32, 300])
    parser.add_argument("--studies", type=int, default=10_000)
    arguments = parser.parse_args()
    print("| page of | seconds | MB |\n| --- | --- | --- |")
    for slices in arguments.slices:
        prediction = noisy_head(slices)
        seconds, html = timed(lambda made=prediction: study_page(made, StudyText("study")))
        print(f"| {slices} slices of 512 x 512 | {seconds:.3f} | {len(html) / 1e6:.1f} |")
        seconds, picture = timed(lambda made=prediction: thumbnail(made))
        print(f"| its thumbnail | {seconds:.3f} | {len(picture) / 1e6:.3f} |")
    rows = [study(number) for number in range(arguments.studies)]
    seconds, html = timed(lambda: index_page(rows, "model", "studies.csv"), rounds=3)
    print(f"| the list of {arguments.studies:,} studies | {seconds:.3f} | {len(html) / 1e6:.1f} |")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        for what, ms in in_browser(html, browser).items():
            print(f"| Chromium: {what} | {ms / 1000:.3f} | |")


def timed(call: Callable[[], object], rounds: int = 5) -> tuple[float, object]:
    """Median of some rounds after a first one, and what the call gives."""
    result, times = call(), []
    for _ in range(rounds):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def noisy_head(slices: int) -> Prediction:
    """A disc of bone around brain with 8 HU of noise, and a ball of bleeding of two types."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512]
    radius = np.hypot((rows - 256) / 210, (columns - 256) / 170)
    flat = np.where(radius < 0.9, 34.0, np.where(radius < 1, 1000.0, -1000.0))
    hu = np.stack([np.rint(flat + rng.normal(0, 8, flat.shape)).astype(np.int16) for _ in range(slices)])
    heights = (np.arange(slices) - slices / 2)[:, None, None] / (slices / 6)
    mask = (np.hypot(np.hypot(rows - 200, columns - 300) / 50, heights) < 1).astype(np.uint8) * 2
    mask[mask.astype(bool) & (columns > 310)] = 5
    scan = even_scan(hu, 0.45, 150 / slices)
    return Prediction(scan, mask, None, volumes_ml(scan, mask, TYPED), "model", task=TYPED)


def study(number: int) -> IndexRow:
    """A row as `predict` leaves it."""
    rng = random.Random(number)
    name = f"study-{rng.getrandbits(40):010x}"
    if number % 50 == 0:
        return IndexRow(name, failed="it does not look like a head: no bone encloses anything")
    volumes = {kind: round(rng.expovariate(0.1) * (rng.random() < 0.3), 3) for kind in TYPES}
    total = sum(volumes.values())
    doubts = [IndexDoubt("shading", "its brain is shaded: its level differs by 14 HU")] * (rng.random() < 0.2)
    files = {kind: f"{name}_{kind.lower()}.dcm" for kind in ("SEG", "SR", "SC")} | {"mask": f"{name}_mask.nii.gz"}
    return IndexRow(name, "", total, volumes, (0.9 * total, 1.1 * total), doubts, slices=32, slices_with_bleeding=9,
                    page=f"{name}.html", thumbnail=f"thumbnails/{name}.jpg", files=files)  # fmt: skip


def in_browser(html: str, browser: str) -> dict[str, float]:
    """Milliseconds of the page's own script until the first rows stand, and of sorting and filtering with layout."""
    html = re.sub(r"<meta http-equiv[^>]*>", "", html).replace(
        "const table", "const begun = performance.now(), table", 1
    )
    script = """<pre id=result></pre><script>{
    document.body.offsetHeight;
    const said = { "first rows": performance.now() - begun };
    const time = (what, call) => {
        const start = performance.now();
        call();
        document.body.offsetHeight;
        said[what] = performance.now() - start;
    };
    for (const key of KEYS) time("sort by " + key, () => sortBy(key));
    time("filter", () => { filter.value = "shading 7"; arrange(); });
    document.getElementById("result").textContent = JSON.stringify(said);
    }</script></main>""".replace("KEYS", json.dumps(KEYS))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "index.html"
        page.write_text(html.replace("</main>", script), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        done = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, check=True)
    match = re.search(r'id="result">(.*?)</pre>', done.stdout)
    assert match, "the page's script did not end"
    times: dict[str, float] = json.loads(match[1])
    return times


if __name__ == "__main__":
    main()
