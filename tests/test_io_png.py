"""8-bit PNG slices: greys back to HU, spacing that is not known, and files that are something else."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemotorch.errors import InputError
from hemotorch.io import png, read_mask, read_scan
from hemotorch.scan import Frame, Source


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


def ramp(rows: int = 6, columns: int = 5) -> np.ndarray:
    return np.linspace(0, 255, rows * columns).astype(np.uint8).reshape(rows, columns)


def test_a_slice_written_reads_back(tmp_path: Path) -> None:
    hu = np.arange(-20, 101, dtype=np.int16).reshape(11, 11)
    png.write_slice(tmp_path / "049_012.png", hu, png.PngWindow())
    scan = read_scan(tmp_path / "049_012.png")
    assert np.array_equal(scan.hu[0], hu)
    assert scan.slice_numbers == (12,)
    assert scan.source == Source("png", (str(tmp_path / "049_012.png"),), (Frame(0, 0),))
    assert not scan.spacing_known
    assert np.isnan(scan.volume_ml(np.ones(scan.shape)))
    assert "greys are taken as level 40, width 120 HU" in scan.warnings[0]
    assert "spacing is not known" in scan.warnings[1]


def test_slices_stack_by_their_numbers(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"049_{n:03d}.png", np.full((6, 5), n, np.uint8)) for n in (10, 9, 12)]
    png.write_window(tmp_path, png.PngWindow(127.5, 255, 0.5, 4.0))  # grey is HU
    scan = read_scan(paths)
    assert scan.name == "049"
    assert scan.slice_numbers == (9, 10, 12)
    assert scan.hu[:, 0, 0].tolist() == [9, 10, 12]
    assert scan.pixel_mm == (0.5, 0.5)
    np.testing.assert_allclose(scan.slice_distances_mm, [4, 8])
    np.testing.assert_allclose(scan.voxel_ml, 0.001)  # slice 11 is missing, and no slice stands for it
    assert len(scan.warnings) == 1
    assert "first between 10 and 12, 8 mm apart" in scan.warnings[0]


def test_the_window_lies_beside_or_above(tmp_path: Path) -> None:
    path = save(tmp_path / "image" / "a_001.png", ramp())
    assert png.read_window(path.parent) is None
    png.write_window(tmp_path, png.PngWindow(75, 215))
    assert png.read_window(path.parent) == png.PngWindow(75, 215, None, None)
    (path.parent / "window.json").write_text('{"level": 30}')
    assert png.read_window(path.parent) == png.PngWindow(30, 120)


@pytest.mark.parametrize("numbers", [(4, 11), (7,), (3, 4, 5, 11), (1, 2, 3)])
def test_slices_with_a_stated_distance_stand_for_it_each(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    paths = [save(tmp_path / f"a_{n:03d}.png", ramp()) for n in numbers]
    png.write_window(tmp_path, png.PngWindow(pixel_mm=2.0, slice_mm=5.0))
    scan = read_scan(paths)
    np.testing.assert_allclose(scan.voxel_ml, 2.0 * 2.0 * 5.0 / 1000)
    assert bool(scan.warnings) == (11 in numbers)


@pytest.mark.parametrize("spacing", [{"pixel_mm": 0.5}, {"slice_mm": 5.0}, {}])
def test_half_a_spacing_is_none(tmp_path: Path, spacing: dict[str, float]) -> None:
    paths = [save(tmp_path / f"a_00{n}.png", ramp()) for n in (1, 2)]
    png.write_window(tmp_path, png.PngWindow(**spacing))
    scan = read_scan(paths)
    assert not scan.spacing_known
    assert scan.warnings == ("spacing is not known: no millimetres and no volume in mL",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{not json", "cannot be read as JSON"),
        ("[40, 120]", r"is a table, not \[40, 120\]"),
        ('{"centre": 40}', "unknown key 'centre': known are: level, pixel_mm, slice_mm, width"),
        ('{"width": 0}', "'width' must be above 0 .*, not 0"),
        ('{"width": null}', "'width' is a number .*, not None"),
        ('{"level": "40"}', "'level' is a number .*, not '40'"),
        ('{"pixel_mm": -1}', "'pixel_mm' must be above 0 .*, not -1"),
        ('{"level": NaN}', "'level' is a finite number, not nan"),
    ],
)
def test_a_window_that_cannot_be_used(tmp_path: Path, content: str, reason: str) -> None:
    path = save(tmp_path / "a.png", ramp())
    (tmp_path / "window.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        read_scan(path)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
def test_grey_in_any_mode(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a_001.png", ramp(), mode)
    assert np.array_equal(read_mask(path)[0], ramp())


def test_one_bit_labels_are_0_and_255(tmp_path: Path) -> None:
    path = save(tmp_path / "a_001.png", ramp() > 100)
    assert np.array_equal(read_mask(path)[0], np.where(ramp() > 100, 255, 0))


def test_labels_are_written_as_0_and_255(tmp_path: Path) -> None:
    png.write_label(tmp_path / "a_001.png", np.array([[0, 1], [6, 3]], np.uint8))
    assert np.asarray(Image.open(tmp_path / "a_001.png")).tolist() == [[0, 255], [255, 255]]


def test_colours(tmp_path: Path) -> None:
    colour = np.stack([ramp(), ramp(), 255 - ramp()], axis=-1)
    with pytest.raises(InputError, match="colour image"):
        read_scan(save(tmp_path / "a.png", colour))


def test_sixteen_bits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not 8-bit \(16 bits"):
        read_scan(save(tmp_path / "a.png", ramp().astype(np.uint16) * 100))


def chunked(rows: np.ndarray, bits: int, kind: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG of packed rows of bytes, of any bit depth and colour type, with extra chunks before the pixels."""
    columns = rows.shape[1] * 8 // bits // {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    header = struct.pack(">IIBBBBB", columns, len(rows), bits, kind, 0, 0, 0)
    pixels = zlib.compress(np.pad(rows, ((0, 0), (1, 0))).tobytes())
    chunks = [(b"IHDR", header), *extra, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.mark.parametrize(
    ("bits", "kind", "rows", "extra", "expected"),
    [
        (1, 0, [[0b10100000]], (), [255, 0, 255, 0, 0, 0, 0, 0]),
        (2, 0, [[0b00011011]], (), [0, 85, 170, 255]),
        (4, 0, [[0x0F, 0x81]], (), [0, 255, 136, 17]),
        (2, 3, [[0b00011011]], ((b"PLTE", bytes([9, 9, 9, 80, 80, 80, 200, 200, 200, 3, 3, 3])),), [9, 80, 200, 3]),
        (8, 0, [[1, 100, 255]], ((b"gAMA", struct.pack(">I", 100_000)),), [1, 100, 255]),
        (8, 0, [[1, 100, 255]], ((b"tRNS", b"\0\7"),), [1, 100, 255]),  # no pixel has the transparent grey
        (8, 4, [[7, 255, 90, 255]], (), [7, 90]),
        (8, 6, [[7, 7, 7, 255]], (), [7]),
    ],
)
def test_every_kind_of_grey(
    tmp_path: Path, bits: int, kind: int, rows: list[list[int]], extra: tuple[tuple[bytes, bytes], ...], expected: Any
) -> None:
    (tmp_path / "a.png").write_bytes(chunked(np.array(rows, np.uint8), bits, kind, *extra))
    assert png.read_image(tmp_path / "a.png").tolist() == [expected]
    assert png.read_label(tmp_path / "a.png").tolist() == [expected]


@pytest.mark.parametrize("kind", [0, 2, 4, 6])
def test_sixteen_bits_of_any_colour_type_are_refused(tmp_path: Path, kind: int) -> None:
    (tmp_path / "a.png").write_bytes(chunked(np.zeros((2, 16), np.uint8), 16, kind))
    for read in (png.read_image, png.read_label):
        with pytest.raises(InputError, match="16 bits per sample"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("under", [0, 255])
@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_labels_drawn_in_the_alpha_channel(tmp_path: Path, mode: str, under: int) -> None:
    mask = np.zeros((6, 5), np.uint8)
    mask[2, 1:4] = 255
    grey = np.full_like(mask, under)
    if mode == "PA":  # a palette in which the second colour is transparent
        image = Image.fromarray(np.where(mask > 0, 0, 1).astype(np.uint8)).convert("P")
        image.putpalette([under] * 6)
        image.save(tmp_path / "a.png", transparency=1)
    else:
        values = np.dstack([grey] * (len(mode) - 1) + [mask])
        Image.fromarray(values).save(tmp_path / "a.png")
        empty = np.dstack([grey] * (len(mode) - 1) + [mask * 0])
        Image.fromarray(empty).save(tmp_path / "empty.png")
        assert not png.read_label(tmp_path / "empty.png").any()
    assert np.array_equal(png.read_label(tmp_path / "a.png"), mask)
    with pytest.raises(InputError, match=r"a\.png: is partly transparent"):
        png.read_image(tmp_path / "a.png")


def test_a_picture_that_is_wholly_transparent_is_refused(tmp_path: Path) -> None:
    grey = np.zeros((6, 5), np.uint8)
    grey[2, 1:4] = 255
    save(tmp_path / "a.png", np.dstack([grey, grey * 0]))
    for read in (png.read_label, png.read_image):
        with pytest.raises(InputError, match="is wholly transparent, and a picture lies under it"):
            read(tmp_path / "a.png")


def test_a_transparent_grey_is_not_marked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(chunked(np.array([[0, 0, 9, 3]], np.uint8), 8, 0, (b"tRNS", b"\0\0")))
    assert png.read_label(tmp_path / "a.png").tolist() == [[0, 0, 9, 3]]


@pytest.mark.parametrize(
    ("grey", "alpha", "reason"),
    [([255, 255, 255], [0, 128, 255], "half-transparent"), ([0, 0, 255], [0, 255, 255], "either may mean not marked")],
)
def test_labels_in_doubt_are_refused(tmp_path: Path, grey: list[int], alpha: list[int], reason: str) -> None:
    save(tmp_path / "a.png", np.dstack([np.array([grey], np.uint8), np.array([alpha], np.uint8)]))
    with pytest.raises(InputError, match=reason):
        read_mask(tmp_path / "a.png")


def test_postscript_and_huge_and_animated_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    with pytest.raises(InputError, match="cannot be read as PNG"):
        read_scan(tmp_path / "a.png")
    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 0, 0, 0, 0)
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + header)
    with pytest.raises(InputError, match="13000 x 13000 pixels"):
        read_mask(tmp_path / "b.png")
    frames = [Image.fromarray(ramp()), Image.fromarray(255 - ramp())]
    frames[0].save(tmp_path / "c.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is animated"):
        read_scan(tmp_path / "c.png")


def test_broken_files(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 255
    for name, content in {"cut": whole[:800], "text": b"text", "empty": b"", "damaged": bytes(damaged)}.items():
        (tmp_path / f"{name}.png").write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}\.png: cannot be read as PNG"):
            read_scan(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match="no such file"):
        read_mask(tmp_path / "missing.png")


def test_sizes_that_differ(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a_001.png", ramp(6, 5)), save(tmp_path / "a_002.png", ramp(6, 6))]
    with pytest.raises(InputError, match=r"a_002\.png: size \(6, 6\) differs from \(6, 5\) of a_001\.png"):
        read_scan(paths)
    with pytest.raises(InputError, match=r"a_002\.png: this label's size \(6, 6\) is not that of its image, \(6, 5\)"):
        read_mask(paths[1], read_scan(paths[0]))


def test_numbers_that_repeat(tmp_path: Path) -> None:
    paths = [save(tmp_path / name, ramp()) for name in ("a_001.png", "a_0001.png")]
    with pytest.raises(InputError, match="the same number"):
        read_scan(paths)


def test_file_names() -> None:
    assert png.slice_file("049", 7) == "049_007.png"
    assert png.case_and_number("049_007.png") == ("049", 7)
    assert png.case_and_number("site_a_049_1007.png") == ("site_a_049", 1007)
    assert [png.case_and_number(name) for name in ("12.png", "a_12.png", "_001.png", "a-001.png")] == [None] * 4


def test_window_file_is_readable_json(tmp_path: Path) -> None:
    png.write_window(tmp_path, png.PngWindow())
    assert json.loads((tmp_path / "window.json").read_text()) == {
        "level": 40,
        "width": 120,
        "pixel_mm": None,
        "slice_mm": None,
    }
