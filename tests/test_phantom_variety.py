"""What only some patients of the phantom have: each a choice of its own, none of it bleeding."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest

from hemotorch.cli.parser import make_parser
from hemotorch.data.layouts import open_layout
from hemotorch.data.phantom_folders import write_phantom
from hemotorch.errors import OptionError
from hemotorch.phantom import make_case
from hemotorch.phantom.anatomy import Patient
from hemotorch.phantom.case import Layers, sample_case
from hemotorch.phantom.fields import generator
from hemotorch.phantom.presets import PRESETS, Chances, preset
from hemotorch.phantom.scanner import Protocol, rings
from hemotorch.phantom.variety import MOST_SLICES, NOISIEST_HU, Variety

SPEC = preset("small", patients=40, size=96)
NORMAL = next(i for i in range(40) if SPEC.leading_type(i, 0) is None)


def with_chances(**chances: float):
    return preset(SPEC, chances=chances)


@pytest.fixture(scope="module")
def usual():
    return make_case(SPEC, NORMAL)


def test_without_chances_nothing_changes():
    none = Variety(Chances(), (3, 4))
    patient, protocol = Patient.sample(generator(1)), Protocol.sample(generator(2), SPEC)
    lesions = sample_case(SPEC, 0, 0)[2]
    assert none.patient(patient) == patient and none.protocol(protocol, patient) == protocol
    assert none.bleeding(lesions, 0) == lesions and none.confounders(patient) == []
    for name in ("demo", "small", "ct-ich"):
        assert PRESETS[name].chances == Chances()


def test_switching_one_off_changes_no_other():
    for index in range(12):
        patient, protocol, lesions, _ = sample_case(PRESETS["default"], index, 0)
        without = preset("default", chances={"surgery": 0, "shunt": 0, "metal": 0, "part": 0})
        patient2, protocol2, lesions2, _ = sample_case(without, index, 0)
        assert replace(patient, openings=(), implants=()) == patient2 and lesions == lesions2
        same = {"slices": 0, "bottom_mm": 0.0, "implants": False}
        assert replace(protocol, **same) == replace(protocol2, **same)


def test_contrast_fills_the_sinuses_and_is_said(usual):
    given = make_case(with_chances(contrast=1), NORMAL)
    assert given.scan.contrast and not usual.scan.contrast and not given.mask.any()
    change = given.scan.hu.astype(int) - usual.scan.hu
    assert (change[given.inside] > 50).sum() > 100
    assert np.median(np.abs(change[~given.inside])) < 3


@pytest.mark.parametrize(
    ("name", "least_hu"), [("dense_veins", 3), ("dense_membranes", 8), ("shunt", 60), ("metal", 100)]
)
def test_what_is_dense_is_dense_and_no_bleeding(usual, name, least_hu):
    case = make_case(with_chances(**{name: 1.0}), NORMAL)
    change = case.scan.hu.astype(int) - usual.scan.hu
    assert not case.mask.any() and (change[case.inside & usual.inside] > least_hu).sum() > 8


def test_an_opened_skull_has_less_bone(usual):
    case = make_case(with_chances(surgery=1), NORMAL)
    lost = (usual.scan.hu > 500) & (case.scan.hu < 300)
    assert lost.sum() > 20 and not case.mask.any()


def test_the_default_preset_holds_what_it_says():
    sampled = [sample_case(PRESETS["default"], i, 0) for i in range(240)]
    protocols = [protocol for _, protocol, _, _ in sampled]
    patients = [patient for patient, _, _, _ in sampled]
    slices, thick = [p.slices for p in protocols], [p.slice_mm for p in protocols]
    assert min(thick) < 0.7 and max(thick) > 7 and min(slices) < 8
    assert all(p.slices <= max(MOST_SLICES, 70) and p.noise_hu <= NOISIEST_HU for p in protocols)
    assert max(p.noise_hu for p in protocols) > 17 and any(p.thickness_mm > 1.9 * p.slice_mm for p in protocols)
    for has, chance in (
        ([p.contrast for p in patients], PRESETS["default"].chances.contrast),
        ([bool(p.implants) for p in patients], 0.12),
        ([p.holder == 3 for p in protocols], PRESETS["default"].chances.holder),
    ):
        assert np.mean(has) == pytest.approx(chance, abs=0.09)


def test_overlapping_slices_are_means_over_their_thickness():
    protocol = replace(sample_case(SPEC, NORMAL, 0)[1], slice_mm=5.0)
    changed = Variety(Chances(overlap=1.0), (0, 1)).protocol(protocol, Patient.sample(generator(1)))
    assert changed.thickness_mm == 5.0 and changed.slice_mm == 2.5 and changed.slices > protocol.slices
    grid = Layers.of(changed)
    layers = generator(3).standard_normal((grid.slices * grid.count, grid.rows, grid.columns), dtype=np.float32)
    alone = replace(grid, over=1).averaged(layers)
    overlapping = grid.averaged(layers)
    assert overlapping.shape == alone.shape and overlapping.std() < 0.85 * alone.std()
    neighbours = (overlapping[1:] * overlapping[:-1]).mean() / overlapping.var()
    assert neighbours > 0.2 and abs((alone[1:] * alone[:-1]).mean() / alone.var()) < 0.02


def test_rings_lie_around_the_middle():
    protocol = replace(Protocol.sample(generator(2), SPEC), size_px=64, rings_hu=4.0)
    image = rings(protocol, 2)
    assert image.shape == (2, 64, 64) and 0.3 < image.std() < 4
    assert image == pytest.approx(image[:, ::-1], abs=1e-4) and image == pytest.approx(image[:, :, ::-1], abs=1e-4)


def test_contrast_is_said_in_the_header_and_in_phantom_json(tmp_path):
    spec = preset("small", patients=2, size=48, chances={"contrast": 1, "part": 1})
    summary = write_phantom(tmp_path, spec, layout="dicom", workers=1)
    assert summary["contrast"] == [spec.case_name(0), spec.case_name(1)] and summary["chances"]["contrast"] == 1
    case = open_layout(tmp_path).cases[0]
    assert "contrast agent" in case.read()[0].contrast


def test_a_chance_is_named_and_from_0_to_1():
    assert preset("demo", chances={"contrast": 0.5}).chances == Chances(contrast=0.5)
    with pytest.raises(OptionError, match="did you mean 'contrast'"):
        preset("demo", chances={"contrst": 0.5})
    with pytest.raises(OptionError, match="from 0 to 1"):
        preset("demo", chances={"contrast": 2})
    arguments = make_parser().parse_args(["phantom", "x", "--chance", "shunt=0", "--chance", "part=0.5"])
    assert dict(arguments.chance) == {"shunt": 0.0, "part": 0.5} and set(dict(arguments.chance)) <= set(
        asdict(Chances())
    )


def test_a_part_of_a_head_shows_some_of_what_is_inside_the_skull():
    """Number 49 of seed 1013 lay below the skull's space, all of it: `prepare` refused its mask of the inside."""
    part = make_case(preset("default", size=96), 48, 1013)
    assert len(part.scan.hu) == 4 and np.count_nonzero(part.inside) > 100
    lowest = preset("default", size=96, chances={"part": 1.0, "thin": 1.0, "overlap": 0.0})
    for index in range(60):
        protocol = sample_case(lowest, index, 3)[1]
        assert protocol.bottom_mm + protocol.slices * protocol.slice_mm >= -36
