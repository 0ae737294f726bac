"""The phantom: the same from the same seed, shaped like the datasets it stands for, all five types, and not easy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import ndimage

from hemotorch.data.layouts import open_layout
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.errors import InputError, OptionError
from hemotorch.labels import CODES, TYPES, types_per_slice
from hemotorch.phantom import PRESETS, VERSION, make_case
from hemotorch.phantom.case import sample_case
from hemotorch.phantom.fields import generator
from hemotorch.phantom.presets import preset
from hemotorch.phantom.sample_lesions import sample_bleeding
from hemotorch.system.files import read_json

TINY = preset("small", patients=4, size=64)


def first(kind: str | None, seed: int = 0, spec=TINY):
    """The index of the first patient led by a type, in a set large enough to hold one."""
    wide = preset(spec, patients=40, size=96)
    return wide, next(i for i in range(40) if wide.leading_type(i, seed) == kind)


@pytest.fixture(scope="module")
def led():
    """One small case led by each type, and one without bleeding."""
    cases = {}
    for kind in (*TYPES, None):
        spec, index = first(kind)
        cases[kind] = make_case(spec, index)
    return cases


def test_a_case_is_a_function_of_preset_index_and_seed():
    one, two, other = make_case(TINY, 1, seed=5), make_case(TINY, 1, seed=5), make_case(TINY, 1, seed=6)
    assert np.array_equal(one.scan.hu, two.scan.hu) and np.array_equal(one.mask, two.mask) and one.info == two.info
    assert one.scan.hu.shape != other.scan.hu.shape or not np.array_equal(one.scan.hu, other.scan.hu)
    assert not np.array_equal(make_case(TINY, 2, seed=5).scan.hu[:5], one.scan.hu[:5])


@pytest.mark.parametrize("kind", TYPES)
def test_each_type_is_drawn_where_it_belongs_and_denser_than_what_is_around_it(led, kind):
    case = led[kind]
    blood = case.mask == CODES[kind]
    assert 0.02 < case.scan.volume_ml(blood) < 150
    brain = np.median(case.scan.hu[(case.scan.hu > 5) & (case.scan.hu < 70) & (case.mask == 0)])
    dense = np.percentile(case.scan.hu[blood], 40)  # at pixels of 2.4 mm the rest may hold some bone
    assert brain < dense < brain + 60
    assert case.info.hemorrhage
    rows = dict(zip(case.scan.slice_numbers, types_per_slice(case.mask), strict=True))
    assert all(
        case.info.slice_types[n] == {t for t, there in zip(TYPES, row, strict=True) if there} for n, row in rows.items()
    )


def test_a_normal_patient_has_no_mask_and_a_whole_head(led):
    case = led[None]
    assert not case.mask.any() and not case.info.hemorrhage
    hu = case.scan.hu
    for low, high, least in ((-1100, -900, 0.3), (10, 50, 0.08), (600, 3000, 0.015)):  # air, brain, bone
        assert ((hu > low) & (hu < high)).mean() > least
    # Past the vertex the last slice holds far less than the fullest one: coverage goes over the top of the head.
    body = (hu > -300).mean(axis=(1, 2))
    assert body[-1] < 0.35 * body.max()


def test_what_lies_inside_the_skull_is_one_closed_space_with_all_the_bleeding(led):
    for case in led.values():
        inside, hu = case.inside, case.scan.hu
        assert inside.dtype == bool and inside.shape == hu.shape
        assert inside[case.mask > 0].all()
        assert 1000 < case.scan.volume_ml(inside) < 2600
        middle = len(hu) * 2 // 3
        assert 15 < np.median(hu[inside]) < 55
        # Around it lies bone: what is within a step of it and outside is dense.
        rim = ndimage.binary_dilation(inside[middle], iterations=2) & ~inside[middle]
        assert np.median(hu[middle][rim]) > 250
        whole, count = ndimage.label(inside)
        assert count and np.bincount(whole.ravel())[1:].max() > 0.97 * inside.sum()
        assert not inside[-1].any() or case.scan.hu[-1][inside[-1]].mean() > 0


def test_the_spinal_canal_is_not_inside_the_skull():
    spec = preset("demo", patients=40, size=96)
    low = [i for i in range(40) if sample_case(spec, i, 0)[1].bottom_mm < -80]
    assert low
    case = make_case(spec, low[0])
    assert not case.inside[0].any() and case.inside[len(case.inside) // 2].any()


def test_positive_patients_are_counted_exactly_and_every_type_leads():
    for name, share in (("ct-ich", 36), ("small", 24), ("demo", 44)):
        spec = PRESETS[name]
        leads = [spec.leading_type(i, 0) for i in range(spec.patients)]
        assert sum(lead is not None for lead in leads) == share
        assert set(leads) == {*TYPES, None}
        assert leads != [spec.leading_type(i, 1) for i in range(spec.patients)]


def test_scanners_differ_as_much_as_the_field_says():
    sampled = [sample_case(PRESETS["small"], i, 0) for i in range(60)]
    protocols = [protocol for _, protocol, _, _ in sampled]
    noise, thick = [p.noise_hu for p in protocols], [p.slice_mm for p in protocols]
    fields = [p.pixel_mm * p.size_px for p in protocols]
    assert min(noise) < 3.5 and max(noise) > 7 and min(noise) >= 2 and max(noise) <= 15
    assert min(thick) < 4 and max(thick) > 7 and min(fields) < 225 and 270 < max(fields) <= 500
    contrasts = [lesion.contrast for _, _, lesions, _ in sampled for lesion in lesions if lesion.code]
    assert np.percentile(contrasts, 10) < 25 and np.percentile(contrasts, 90) > 32


def test_ct_ich_has_the_published_subjects_and_sizes():
    spec = PRESETS["ct-ich"]
    assert [spec.case_name(i) for i in (0, 9, 10, 74)] == ["049", "058", "066", "130"]
    protocols = [sample_case(spec, i, 0)[1] for i in range(75)]
    assert 2600 < sum(p.slices for p in protocols) < 3100  # published: 2814
    assert 4.9 < np.median([p.slice_mm for p in protocols]) < 5.1 and spec.size_px == 512


def test_written_in_parallel_it_is_the_same_and_reads_as_ct_ich(tmp_path):
    told = write_phantom(tmp_path / "two", "small", patients=2, size=64, seed=4, workers=2)
    write_phantom(tmp_path / "one", "small", patients=2, size=64, seed=4, workers=1)
    for path in sorted((tmp_path / "one").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes(), path.name
    assert told["phantom"] == VERSION and told["cases"] == 2
    cases = open_layout(tmp_path / "two").cases
    assert len(cases) == 2
    for index, case in enumerate(cases):
        made = make_case(preset("small", 2, 64), index, 4)
        scan, mask = case.read()
        assert np.array_equal(scan.hu, made.scan.hu) and np.array_equal(mask > 0, made.mask > 0)
        assert scan.pixel_mm == pytest.approx(made.scan.pixel_mm, rel=1e-5)
        assert case.slice_types == made.info.slice_types


def test_other_layouts_and_bad_requests(tmp_path):
    write_phantom(tmp_path / "folder", "small", patients=1, size=48, layout="folder", workers=1)
    (case,) = open_layout(tmp_path / "folder").cases
    made = make_case(preset("small", 1, 48), 0, 0)
    assert np.array_equal(case.read_inside(case.read()[0]), made.inside)
    with pytest.raises(OptionError, match="did you mean 'small'"):
        write_phantom(tmp_path / "x", "smal")
    with pytest.raises(OptionError, match="layout"):
        write_phantom(tmp_path / "x", "small", layout="dicom9")
    with pytest.raises(OptionError, match="at least one patient"):
        write_phantom(tmp_path / "x", "small", patients=0)
    with pytest.raises(InputError, match="not empty"):
        write_phantom(tmp_path / "folder", "small", patients=1)


def test_less_even_scanners_change_the_picture_and_not_the_patient(tmp_path):
    usual = make_case(preset("small", 1, 64), 0, 4)
    write_phantom(tmp_path, "small", patients=1, size=64, seed=4, shading_hu=30, layout="folder", workers=1)
    assert read_json(tmp_path / "phantom.json")["shading_hu"] == 30
    spec = preset("small", 1, 64, shading_hu=30)
    scan, mask = open_layout(tmp_path).cases[0].read()
    assert np.array_equal(scan.hu, make_case(spec, 0, 4).scan.hu) and scan.shape == usual.scan.shape
    added = scan.hu.astype(int) - usual.scan.hu
    assert np.array_equal(mask > 0, make_case(spec, 0, 4).mask > 0)
    assert not added[usual.scan.hu > 301].any() and 1 < np.abs(added[usual.inside]).mean() < 40
    with pytest.raises(OptionError, match="from 0 to 100 HU"):
        preset("small", shading_hu=-1)


def test_wide_bleeding_lies_anywhere_under_the_skull_and_may_be_thin():
    def sampled(wide):
        lesions = []
        for seed in range(60):
            lesions += sample_bleeding(generator(seed), ("subdural", "epidural")[seed % 2], wide)
        return [lesion for lesion in lesions if lesion.site in ("vault", "crossing")]

    usual, wide = sampled(False), sampled(True)
    assert len(usual) == len(wide) and [lesion.kind for lesion in usual] == [lesion.kind for lesion in wide]
    at_the_back = [sum(lesion.centre[1] < -0.6 for lesion in lesions) for lesions in (usual, wide)]
    assert at_the_back[1] > 1.5 * at_the_back[0]
    thin = [sum(lesion.axes[2] < 4.5 for lesion in lesions) for lesions in (usual, wide)]
    assert thin[1] > thin[0] + 5 and min(lesion.axes[2] for lesion in wide) >= 2.5


def test_workers_need_no_torch():
    code = "import sys, hemotorch.phantom; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
