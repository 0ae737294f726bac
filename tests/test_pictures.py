"""Pictures: which side is left, what lines cover, which slices are shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from hemotorch.data.layouts import open_layout
from hemotorch.hu import WINDOWS
from hemotorch.labels import CODES, COLOURS
from hemotorch.pictures import PREDICTED_RGB, TRUTH_RGB, contact_sheet, head_box, pick_slices, slice_rgb
from hemotorch.scan import Scan, even_scan

GREY = 40  # HU in the middle of the brain window: grey 128


def is_colour(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def ball(shape: tuple[int, int, int] = (20, 80, 80), pixel_mm: float = 3.0) -> Scan:
    """A round head in air: bone 6 mm thick around brain, off centre, with a dense rail beside it."""
    slices, rows, columns = np.indices(shape)
    far = np.hypot(np.hypot((rows - 35) * pixel_mm, (columns - 45) * pixel_mm), (slices - 10) * 6.0)
    hu = np.where(far < 66, GREY, np.where(far < 72, 900, -1000)).astype(np.int16)
    hu[:, 20:60, 3] = 1500
    return even_scan(hu, pixel_mm, 6.0, "ball")


def test_right_of_the_patient_is_left_of_the_picture() -> None:
    hu = np.full((20, 20), -1000, np.int16)
    hu[2:6, 2:6] = 80  # first columns: the patient's right; first rows: the front
    picture = slice_rgb(hu, height=200)
    assert picture.shape == (200, 200, 3)
    assert picture[40, 40, 0] > 200
    assert picture[:, 100:].max() == picture[100:].max() == 0


@pytest.mark.parametrize(("hu", "grey"), [(-500, 0), (-20, 0), (40, 128), (100, 255), (2000, 255)])
def test_greys(hu: int, grey: int) -> None:
    assert (slice_rgb(np.full((8, 8), hu, np.int16), WINDOWS["brain"], height=32) == grey).all()


def test_pixels_that_are_not_square() -> None:
    assert slice_rgb(np.zeros((100, 60), np.int16), pixel_mm=(1.0, 0.5), height=200).shape == (200, 60, 3)


def test_lines_do_not_hide_the_thinnest_lesion() -> None:
    truth = np.zeros((20, 20), bool)
    truth[10, 5:15] = True  # one pixel thick: eight in the picture
    picture = slice_rgb(np.full((20, 20), GREY, np.int16), truth=truth, height=160)
    line = is_colour(picture, TRUTH_RGB)
    area = np.kron(truth, np.ones((8, 8), bool))
    assert not (line & area).any()
    assert line.sum() == 2 * (80 + 8)  # one pixel wide, all around
    assert (picture[area] == 128).all()


def test_truth_and_finding_are_both_seen_where_they_agree() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[8:12, 8:12] = 3
    picture = slice_rgb(np.full((20, 20), GREY, np.int16), truth=mask, predicted=mask, height=160)
    area = np.kron(mask > 0, np.ones((8, 8), bool))
    assert is_colour(picture, TRUTH_RGB).sum() == 4 * 32
    assert not (is_colour(picture, TRUTH_RGB) & area).any()
    assert is_colour(picture, PREDICTED_RGB).sum() == 4 * 31
    assert not (is_colour(picture, PREDICTED_RGB) & ~area).any()


def test_a_finding_alone_is_outlined_outside() -> None:
    found = np.zeros((20, 20), bool)
    found[8:12, 8:12] = True
    picture = slice_rgb(np.full((20, 20), GREY, np.int16), predicted=found, height=160)
    assert is_colour(picture, PREDICTED_RGB).sum() == 4 * 32


def test_small_lesions_survive_shrinking() -> None:
    found = np.zeros((400, 400), bool)
    found[200, 200] = True
    assert is_colour(slice_rgb(np.full((400, 400), GREY, np.int16), predicted=found, height=100), PREDICTED_RGB).any()


def test_the_head_is_cut_out_without_the_rail() -> None:
    scan = ball()
    rows, columns = head_box(scan)
    assert 35 - 24 - 6 <= rows.start <= 35 - 24  # skull, and up to 14 mm of scalp and three pixels of search
    assert 35 + 24 <= rows.stop <= 35 + 24 + 6
    assert 45 - 24 - 6 <= columns.start <= 45 - 24
    marked = np.zeros(scan.shape, np.uint8)
    marked[3, 5, 70] = 1
    assert head_box(scan, [marked])[0].start <= 5


def test_without_bone_or_without_anything() -> None:
    scan = ball()
    brain = even_scan(np.where(scan.hu == GREY, scan.hu, 0).astype(np.int16), 3.0, 6.0)
    rows, _ = head_box(brain)
    assert 35 - 22 - 7 <= rows.start <= 35 - 22
    empty = even_scan(np.full((3, 20, 30), -1000, np.int16), 1.0, 5.0)
    assert head_box(empty) == (slice(0, 20), slice(0, 30))
    assert contact_sheet(empty).width > 0


def test_which_slices_are_shown() -> None:
    scan = ball((20, 80, 80))
    mask = np.zeros(scan.shape, np.uint8)
    assert pick_slices(scan, [mask], 20) == list(range(20))
    mask[[4, 5], 35, 45] = 1
    chosen = pick_slices(scan, [mask], 6)
    assert len(chosen) == 6
    assert {4, 5} <= set(chosen)
    assert chosen == sorted(chosen)
    mask[2:19, 35, 45] = 1
    assert pick_slices(scan, [mask], 3) == [2, 10, 18]
    tall = even_scan(np.concatenate([np.full((60, 80, 80), -1000, np.int16), scan.hu]), 3.0, 6.0)
    assert min(pick_slices(tall, [], 10)) >= 60  # not the empty ones


def test_the_sheet_outlines_what_was_found() -> None:
    scan = ball()
    found, truth = np.zeros(scan.shape, np.uint8), np.zeros(scan.shape, np.uint8)
    found[10, 30:34, 40:44] = 1
    plain = np.asarray(contact_sheet(scan))
    assert not is_colour(plain, PREDICTED_RGB).any()
    with_found = np.asarray(contact_sheet(scan, found))
    assert is_colour(with_found, PREDICTED_RGB).sum() > 40
    assert not is_colour(with_found, TRUTH_RGB).any()
    truth[11, 30:34, 40:44] = 5
    both = contact_sheet(scan, found, truth, caption="a caption so long that it does not fit " * 10)
    assert is_colour(np.asarray(both), TRUTH_RGB).sum() > 40
    assert both.mode == "RGB"


def test_a_sheet_where_spacing_is_unknown() -> None:
    scan = even_scan(ball().hu[10:11], 1, 1, "png", spacing_known=False)
    found = np.zeros(scan.shape, np.uint8)
    found[0, 30:34, 40:44] = 1
    assert is_colour(np.asarray(contact_sheet(scan, found)), PREDICTED_RGB).any()


def test_a_real_sheet(shared_data: Path) -> None:
    scan, truth = open_layout(shared_data / "head-ct-painted").cases[0].read()
    assert truth is not None
    sheet = contact_sheet(scan, truth, truth, tile_px=200)
    assert isinstance(sheet, Image.Image)
    assert 1000 < sheet.width < 2000
    (rows, columns), picture = head_box(scan), np.asarray(sheet)
    assert (rows.stop - rows.start) < 490
    assert (columns.stop - columns.start) < 420  # the head rest's rails lie outside
    assert is_colour(picture, TRUTH_RGB).sum() > 500
    assert is_colour(picture, PREDICTED_RGB).sum() > 500


def test_types_have_colours_of_their_own() -> None:
    grey = np.full((20, 20), GREY, np.int16)
    found = np.zeros((20, 20), np.uint8)
    found[4:8, 4:8] = CODES["subdural"]
    found[12:16, 12:16] = CODES["epidural"]
    picture = slice_rgb(grey, predicted=found, height=160, typed=True)
    assert is_colour(picture, COLOURS["subdural"])[:80].sum() == is_colour(picture, COLOURS["epidural"])[80:].sum()
    assert is_colour(picture, COLOURS["subdural"]).sum() == 4 * 32
    assert not is_colour(picture, PREDICTED_RGB).any()
    plain = slice_rgb(grey, predicted=found, height=160)
    assert is_colour(plain, PREDICTED_RGB).sum() == 2 * 4 * 32, "without `typed` a mask's codes mean nothing"


def test_types_that_touch_are_parted_by_lines_inside_them() -> None:
    found = np.zeros((20, 20), np.uint8)
    found[4:12, 4:8] = CODES["subdural"]
    found[4:12, 8:12] = CODES["epidural"]
    picture = slice_rgb(np.full((20, 20), GREY, np.int16), predicted=found, height=160, typed=True)
    assert is_colour(picture[40:90], COLOURS["subdural"])[:, 63].all()
    assert is_colour(picture[40:90], COLOURS["epidural"])[:, 64].all()


def test_true_types_are_dashed_outside_of_what_was_found() -> None:
    truth, found = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    truth[4:16, 4:16] = CODES["subdural"]
    found[4:16, 4:16] = CODES["epidural"]
    picture = slice_rgb(np.full((20, 20), GREY, np.int16), truth=truth, predicted=found, height=160, typed=True)
    area = np.kron(truth > 0, np.ones((8, 8), bool))
    green, true_type = is_colour(picture, TRUTH_RGB), is_colour(picture, COLOURS["subdural"])
    assert green.sum() + true_type.sum() == 4 * 96 and not ((green | true_type) & area).any()
    assert 0.3 < green.sum() / (4 * 96) < 0.7
    assert is_colour(picture, COLOURS["epidural"]).sum() == 4 * 95
    untyped = slice_rgb(np.full((20, 20), GREY, np.int16), truth=(truth > 0) * np.uint8(6), height=160, typed=True)
    assert is_colour(untyped, TRUTH_RGB).sum() == 4 * 96, "bleeding of unknown type is green"


def test_colours_differ_for_every_eye() -> None:
    """Machado et al. 2009: what full protanopia, deuteranopia and tritanopia make of linear RGB."""
    sights = [
        np.eye(3),
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
    colours = np.array([TRUTH_RGB, *COLOURS.values()])
    greys = np.repeat(np.arange(0, 256, 4)[:, None], 3, axis=1)
    for sight in sights:
        seen, grey = lab(colours, np.array(sight)), lab(greys, np.array(sight))
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 1000 * np.eye(len(seen))
        assert apart.min() > 17
        assert np.linalg.norm(seen[:, None] - grey[None], axis=-1).min() > 17


def lab(rgb: np.ndarray, sight: np.ndarray) -> np.ndarray:
    """CIELAB (D65) of 8-bit sRGB colours."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ sight.T, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = seen @ to_xyz.T / [0.9505, 1, 1.089]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def test_a_typed_sheet_shows_all_types_however_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[float, str]] = []
    text = ImageDraw.ImageDraw.text

    def note(pen, at, words, fill, font, **other):
        written.append((at[0] + pen.textlength(words, font) * ("r" not in other["anchor"]), words))
        return text(pen, at, words, fill, font, **other)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    scan = ball()
    found = np.zeros(scan.shape, np.uint8)
    for code in CODES.values():
        found[10, 30 + 3 * code : 32 + 3 * code, 40:44] = code
    sheet = contact_sheet(scan, found, found, tiles=4, tile_px=120, typed=True)
    colours = {name for name in CODES if is_colour(np.asarray(sheet), COLOURS[name]).sum() > 20}
    assert colours == set(CODES)
    legend = [words for _, words in written if "(true 0.4 mL)" in words]
    assert len(legend) == 5 and all(right < sheet.width for right, _ in written)
    wide = contact_sheet(scan, found, typed=True)
    assert wide.width > 900 and any(words == "intraparenchymal 0.4 mL" for _, words in written)
