"""Masks that cannot be the bleeding of their scan do not become truth."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import tiny
from hemotorch.cli import main
from hemotorch.data import layouts
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError
from hemotorch.scan import CaseInfo


def write_pair(root: Path) -> Path:
    """Two scans with masks in `images/` and `masks/`; returns the mask of the first."""
    for seed, name in ((1, "a"), (2, "b")):
        scan, mask = tiny.head(seed)
        layouts.write_case("folder", root, name, scan, mask, CaseInfo(name, name))
    layouts.write_tables("folder", root, [CaseInfo("a", "a"), CaseInfo("b", "b")])
    return root / "masks/a.nii.gz"


def change(path: Path, values: np.ndarray) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(values.astype(np.uint8), image.affine), path)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda mask: np.where(mask > 0, 0, 2), "on 6 of 6 slices more than half of the head is marked"),
        (lambda mask: np.where(np.arange(mask.shape[2]) == 3, 2, mask), "on 1 of 6 slices more than half"),
        (lambda mask: np.roll(mask, 32, axis=(0, 1)), "100 % of what is marked is air"),
    ],
    ids=["inverted", "one slice inverted", "of another scan"],
)
def test_a_mask_that_cannot_be_bleeding_is_refused(tmp_path: Path, fault: object, reason: str) -> None:
    path = write_pair(tmp_path / "ct")
    change(path, fault(np.asarray(nib.load(path).dataobj)))  # type: ignore[operator]
    summary = prepare(tmp_path / "ct", tmp_path / "out")
    assert reason in summary.failed["a"] and "0 (or black) is not: mend the mask" in summary.failed["a"]
    assert Dataset(tmp_path / "out").cases == ("b",)


def test_black_on_white_is_refused(tmp_path: Path) -> None:
    """Also with a window that shows air and water alike, so that only the share of the picture tells."""
    write_pair(tmp_path / "ct")
    prepare(tmp_path / "ct", tmp_path / "out", png=True)
    label = tmp_path / "out/png/label/a_003.png"
    Image.fromarray(255 - np.asarray(Image.open(label))).save(label)
    summary = prepare(tmp_path / "out/png", tmp_path / "again")
    assert list(summary.failed) == ["a"] and "on 1 of 6 slices" in summary.failed["a"]


def test_the_papers_pairs_refuse_it_too(tmp_path: Path) -> None:
    from hemotorch.training.png_pairs import ICHDataset

    write_pair(tmp_path / "ct")
    prepare(tmp_path / "ct", tmp_path / "out", png=True)
    label = tmp_path / "out/png/label/a_001.png"
    Image.fromarray(255 - np.asarray(Image.open(label))).save(label)
    with pytest.raises(InputError, match="more than half of the picture"):
        ICHDataset(tmp_path / "out/png")[0]


@pytest.mark.parametrize("layout", ["folder", "ct-ich"])
def test_masks_in_a_dataset_are_no_scans(tmp_path: Path, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    scan, mask = tiny.head(1)
    for name in ("049", "050"):
        layouts.write_case(layout, tmp_path / "ct", name, scan, mask, CaseInfo(name, name))
    assert main(["inspect", str(tmp_path / "ct")]) == 0
    assert capsys.readouterr().out.count("volume ") == 2
    # A folder of masks alone holds scans that are no heads, and it is said.
    assert main(["inspect", str(tmp_path / "ct" / "masks")]) == 1
