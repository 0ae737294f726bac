"""The pictures of docs/img.

    python docs/pictures.py phantom DATA          # docs/img/phantom.png
    python docs/pictures.py painted DATA RUN      # docs/img/painted1.png and painted3.png, as RUN sees them
    python docs/pictures.py page DATA RUN         # docs/img/page.jpg: painted6's page by RUN, in Chromium

DATA: a folder that holds head-ct-nifti/head.nii.gz and head-ct-painted/ (neurolabusc/dcm_qa_ct, BSD-2), and
head-ct-painted-2/ for the page. RUN: a run or a model file.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from hemotorch.hu import Window, to_grey
from hemotorch.inference.load import load_model
from hemotorch.inference.predictor import Predictor
from hemotorch.io import read_mask, read_scan
from hemotorch.phantom.case import make_case
from hemotorch.phantom.presets import preset
from hemotorch.pictures import contact_sheet
from hemotorch.report.study_page import StudyText, study_page
from hemotorch.scan import Scan

OUT = Path(__file__).parent / "img"
HEIGHTS = (0.3, 0.48, 0.6, 0.72)  #: of the slices shown, as a share of the scan's own
PAGE_HEIGHT = 810  #: of what is shown of a page, in pixels
PATIENTS = (2, 12, 19)  #: of the `ct-ich` preset, seed 0


def row(scan: Scan, size: int = 250) -> np.ndarray:
    """Four slices side by side, level 40 and width 80."""
    tiles = []
    for height in HEIGHTS:
        grey = Image.fromarray(to_grey(scan.hu[round(height * (len(scan.hu) - 1))], 40, 80))
        tiles.append(np.asarray(grey.resize((size, size), Image.Resampling.LANCZOS)))
    return np.concatenate(tiles, axis=1)


def screenshot_of_page(predictor: Predictor, path: Path) -> None:
    """The upper part of a study's page, as Chromium shows it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium here")
    prediction = predictor.predict(read_scan(path), doubts=True)
    with tempfile.TemporaryDirectory() as folder:
        page, picture = Path(folder) / "page.html", Path(folder) / "page.png"
        page.write_text(study_page(prediction, StudyText(prediction.scan.name, "index.html")), encoding="utf-8")
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder}/profile", f"--screenshot={picture}", "--window-size=1280,1500"]
        subprocess.run([*command, page.as_uri()], check=True, capture_output=True)
        upper = Image.open(picture).convert("RGB").crop((0, 0, 1280, PAGE_HEIGHT))
        upper.save(OUT / "page.jpg", quality=85, optimize=True)


def main() -> None:
    """Makes the pictures asked for."""
    what, data = sys.argv[1], Path(sys.argv[2])
    if what == "phantom":
        scans = [make_case(preset("ct-ich"), index, seed=0).scan for index in PATIENTS]
        scans.append(read_scan(data / "head-ct-nifti/head.nii.gz"))
        Image.fromarray(np.concatenate([row(scan) for scan in scans])).save(OUT / "phantom.png", optimize=True)
        return
    predictor = load_model(sys.argv[3])
    if what == "page":
        screenshot_of_page(predictor, data / "head-ct-painted-2/painted6.nii.gz")
        return
    for name in ("painted1", "painted3"):
        scan = read_scan(data / f"head-ct-painted/{name}.nii.gz")
        truth = read_mask(data / f"head-ct-painted/{name}_mask.nii.gz", scan)
        sheet = contact_sheet(
            scan,
            predicted=predictor.predict(scan).mask,
            truth=truth,
            window=Window(40, 80, "the brain, narrow"),
            caption="painted bleeding in a real head (neurolabusc/dcm_qa_ct, BSD-2)",
            tiles=12,
            tile_px=200,
            typed=bool(predictor.deployment.task.types),
        )
        sheet.save(OUT / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
