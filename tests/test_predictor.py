"""Prediction: where the mask lies, how blocks are stitched, what is refused, and the files that come out."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import zipfile
from dataclasses import asdict, fields, replace
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.interpolate import CubicSpline

import tiny
from hemotorch import io
from hemotorch.cli.output import study_lines
from hemotorch.data.dataset import Dataset
from hemotorch.errors import HemotorchError, InputError, RunError
from hemotorch.grid import SliceSpacing, tile_corners
from hemotorch.inference.checkpoint import FORMAT, Checkpoint, load_checkpoint, save_checkpoint, write_values
from hemotorch.inference.load import load_model
from hemotorch.inference.outputs import write_prediction
from hemotorch.inference.predictor import Predictor, postprocess
from hemotorch.inference.scan_files import find_scans
from hemotorch.inference.studies import predict_files
from hemotorch.inference.study import read_record
from hemotorch.recipe import Predict, Tiles
from hemotorch.run import BEST, Run
from hemotorch.scan import LeftOut, Scan, even_scan
from hemotorch.system.records import to_values


@pytest.fixture(scope="module")
def predictor(tiny_run) -> Predictor:
    return load_model(tiny_run, "cpu")


def with_model(predictor: Predictor, **changes: object) -> Predictor:
    """The predictor with a model that differs in these fields."""
    return replace(predictor, model=replace(predictor.model, **changes))


def values_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint's file holds, but for the digest."""
    values = {field.name: getattr(checkpoint, field.name) for field in fields(checkpoint)}
    return {**values, "deployment": checkpoint.deployment.to_values(), "format": FORMAT}


def test_unseen_bleeding_is_outlined_where_it_is(predictor):
    scan, mask = tiny.head(123)
    found = predictor.predict(scan)
    assert found.mask.shape == mask.shape and found.mask.dtype == np.uint8
    assert found.probability.shape == mask.shape and 0 <= found.probability.min() <= found.probability.max() <= 1
    both = 2 * ((found.mask > 0) & (mask > 0)).sum() / (found.mask.sum() + (mask > 0).sum())
    assert both > 0.6
    assert found.volume_ml["total"] == pytest.approx(scan.volume_ml(found.mask))
    assert found.slices_with_bleeding == [int(n) + 1 for n in np.flatnonzero(found.mask.any((1, 2)))]


def test_a_shifted_finer_scan_gives_the_same_place_in_mm(predictor):
    scan, _ = tiny.head(123)
    fine = np.kron(scan.hu, np.ones((1, 2, 2), np.int16))
    shifted = np.full((tiny.SLICES, 150, 150), -1000, np.int16)
    shifted[:, 5:133, 15:143] = fine
    a, b = predictor.predict(scan), predictor.predict(even_scan(shifted, tiny.PIXEL_MM / 2, 5.0))
    assert b.volume_ml["total"] == pytest.approx(a.volume_ml["total"], rel=0.15)
    centre_a, centre_b = (np.array(ndimage.center_of_mass(p.mask))[1:] for p in (a, b))
    assert centre_b == pytest.approx(centre_a * 2 + 0.5 + [5, 15], abs=1.5)


def test_blocks_are_stitched_by_their_mean(predictor):
    tiles = Tiles(16, 8)
    tiled = replace(predictor.model, tiles=tiles, mirror=False)
    working = np.random.default_rng(0).integers(0, 90, (3, 40, 44)).astype(np.int16)
    probability = torch.from_numpy(tiled.probabilities(working))
    assert probability.shape == (1, 3, 40, 44)
    stack = torch.from_numpy(working)
    total, count = torch.zeros(40, 44), torch.zeros(40, 44)
    with torch.inference_mode():
        for top, left in tile_corners(40, 44, 16, 8):
            block = stack[None, :, top : top + 16, left : left + 16].float()
            total[top : top + 16, left : left + 16] += predictor.model.net(block).sigmoid()[0, 0]
            count[top : top + 16, left : left + 16] += 1
    torch.testing.assert_close(probability[0, 1], total / count, atol=1e-5, rtol=1e-4)


def test_small_pieces_are_dropped_by_ml_with_uneven_slices():
    scan, _ = tiny.head(0)
    origins = scan.slice_origins_mm.copy()
    origins[3:, 2] += [5, 10, 15]  # 5 mm through the base, 10 mm above
    scan = Scan(scan.hu, origins, scan.row_step_mm, scan.column_step_mm)
    probability = np.zeros(scan.shape, np.float32)
    probability[0, 10:14, 10:14] = 0.9  # 16 pixels of 9 mm2, 5 mm: 0.72 mL
    probability[3, 40:44, 40:44] = 0.9  # the same on a slice that stands for 10 mm: 1.44 mL
    mask, left_out = postprocess(probability, scan, Predict(min_ml=1.0))
    assert not mask[0].any() and mask[3].sum() == 16
    assert left_out == LeftOut(1, 0.72, 1.0) and left_out.text.startswith("1 piece of 0.7 mL was left out")
    mask, left_out = postprocess(probability, scan, Predict(min_ml=0.5))
    assert mask.sum() == 32 and left_out is None
    mask, left_out = postprocess(probability, scan, Predict(min_ml=2.0))
    assert not mask.any() and left_out == LeftOut(2, 2.16, 2.0)
    assert left_out.text == "2 pieces, 2.2 mL together, were left out: each is under 2 mL"


def test_the_record_and_the_printed_text_say_what_was_left_out(predictor, tmp_path):
    scan, _ = tiny.head(123)
    whole = predictor.predict(scan)
    assert whole.left_out is None and whole.mask.any()
    strict = replace(predictor.deployment, predict=replace(predictor.deployment.predict, min_ml=1000.0))
    prediction = replace(predictor, deployment=strict).predict(scan)
    write_prediction(prediction, tmp_path, "a")
    record = read_record(tmp_path / "a.json")
    assert record.left_out is not None and record.left_out.pieces >= 1
    assert record.left_out.ml == pytest.approx(whole.volume_ml["total"], abs=0.001) and record.total_ml == 0
    assert any("left out: it is under 1000 mL" in line for line in study_lines("a", record))
    assert record.warnings == whole.warnings and not any("left" in doubt.text for doubt in record.doubts)


def test_closing_and_opening_are_scipys_and_keep_what_touches_the_edge():
    scan, _ = tiny.head(0)
    probability = np.zeros(scan.shape, np.float32)
    probability[0, :20, :20] = 1
    probability[0, 8:11, 8:11] = 0
    probability[1, 30, 30] = 1
    mask, _ = postprocess(probability, scan, Predict(closing_px=10, opening_px=5))
    assert mask[0, :20, :20].all() and mask[0].sum() == 400 and not mask[1].any()


def test_files_keep_the_sources_grid_and_say_what_was_found(tiny_run, tmp_path):
    scan, _ = tiny.head(7)
    affine = np.diag([-3.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = 90, -100, 20
    volume = np.ascontiguousarray(scan.hu[:, ::-1].transpose(2, 1, 0))
    nibabel.save(nibabel.Nifti1Image(volume, affine), tmp_path / "a.nii.gz")
    ((_, result),) = predict_files(tiny_run, [tmp_path / "a.nii.gz"], tmp_path / "out", device="cpu")
    mask = nibabel.load(tmp_path / "out" / "a_mask.nii.gz")
    assert mask.shape == volume.shape and np.array_equal(mask.affine, affine) and mask.get_data_dtype() == np.uint8
    stored = json.loads((tmp_path / "out" / "a.json").read_text())
    assert stored == to_values(result) and stored["volume_ml"]["total"] > 0 and stored["slices_with_bleeding"]
    assert stored["volume_ml"]["total"] == pytest.approx(np.asarray(mask.dataobj).sum() * 45 / 1000, rel=1e-6)
    assert {"read", "prepare", "network", "mask", "doubts", "write"} == stored["seconds"].keys()
    with Image.open(tmp_path / "out" / "a.png") as sheet:
        assert sheet.width > 300


def test_one_bad_scan_does_not_stop_the_others(tiny_run, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    for i in range(2):
        io.write_scan(tiny.head(i + 5)[0], scans / f"{i}.nii.gz")
    (scans / "broken.nii.gz").write_bytes((scans / "0.nii.gz").read_bytes()[:500])
    results = dict(predict_files(tiny_run, [scans, tmp_path / "none.nii"], tmp_path / "out", device="cpu"))
    assert len(results) == 4
    errors = {path.name: str(result) for path, result in results.items() if isinstance(result, HemotorchError)}
    assert errors.keys() == {"broken.nii.gz", "none.nii"}
    assert "broken.nii.gz" in errors["broken.nii.gz"]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.json")) == ["0.json", "1.json"]


def test_results_are_not_overwritten_unless_asked(tiny_run, tmp_path):
    for seed, overwrite, fails in ((5, False, False), (6, False, True), (6, True, False)):
        io.write_scan(tiny.head(seed)[0], tmp_path / "a.nii")
        ((_, result),) = predict_files(
            tiny_run, [tmp_path / "a.nii"], tmp_path / "out", device="cpu", overwrite=overwrite
        )
        assert isinstance(result, HemotorchError) == fails


def test_two_scans_of_one_name_get_their_folders_names(tiny_run, tmp_path):
    for name in "xy":
        io.write_scan(tiny.head(5)[0], tmp_path / name / "head.nii")
    results = list(predict_files(tiny_run, [tmp_path / "x", tmp_path / "y"], tmp_path / "out", device="cpu"))
    assert len(results) == 2 and {p.name for p in (tmp_path / "out").glob("*.json")} == {"x_head.json", "y_head.json"}


def test_a_body_is_refused_and_a_brain_without_skull_is_warned_of(predictor, shared_data):
    body = io.read_scan(shared_data / "body-ct" / "example_ct.nii.gz")
    with pytest.raises(InputError, match=r"does not look like a head CT.*--any-anatomy"):
        predictor.predict(body, any_anatomy=False)
    assert any("inside bone" in text for text in predictor.predict(body).warnings)
    brain = predictor.predict(io.read_scan(shared_data / "brain-ct-atlas" / "ct_brain_atlas_1mm.nii.gz"), False)
    assert any("no skull" in text for text in brain.warnings)


def test_a_real_head_is_taken_for_one(predictor, shared_data):
    scan = io.read_scan(shared_data / "head-ct-nifti" / "head.nii.gz")
    found = predictor.predict(scan, any_anatomy=False)
    assert found.mask.shape == scan.shape and not found.warnings


def test_one_slice_and_unknown_spacing(predictor):
    scan, _ = tiny.head(9, slices=6)
    single = Scan(scan.hu[2:3], scan.slice_origins_mm[2:3], scan.row_step_mm, scan.column_step_mm)
    assert np.isnan(predictor.predict(single).volume_ml["total"])
    unknown = predictor.predict(replace(scan, spacing_known=False))
    assert np.isnan(unknown.volume_ml["total"]) and any("no volume in mL" in text for text in unknown.warnings)


def test_damaged_and_dangerous_checkpoints(tiny_run, tmp_path):
    good = (tiny_run / BEST).read_bytes()
    ran = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return (ran.touch, ())

    (tmp_path / "cut.pt").write_bytes(good[: len(good) // 2])
    middle = len(good) // 2
    (tmp_path / "altered.pt").write_bytes(good[:middle] + bytes([good[middle] ^ 255]) + good[middle + 1 :])
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Code()))
    torch.save({"net": Code(), "weights": {}, "recipe": {}}, tmp_path / "code.pt")
    torch.save({"state_dict": {}}, tmp_path / "foreign.pt")
    says = {
        "cut": "is cut, damaged or not a checkpoint",
        "altered": "is damaged",
        "pickle": "is cut, damaged or not a checkpoint",
        "code": "could run code",
        "foreign": "not a hemotorch checkpoint",
        "missing": "no such checkpoint",
    }
    for name, text in says.items():
        with pytest.raises(InputError, match=text) as caught:
            load_model(tmp_path / f"{name}.pt", "cpu")
        assert f"{name}.pt" in str(caught.value)
    assert not ran.exists()


def test_a_model_that_is_not_there_is_told_from_a_run_without_checkpoint(tiny_run, tmp_path):
    with pytest.raises(InputError, match="no such checkpoint; name a run folder"):
        load_model(tmp_path / "nowhere", "cpu")
    shutil.copytree(tiny_run, tmp_path / "young", ignore=shutil.ignore_patterns("*.pt"))
    with pytest.raises(InputError, match="no such checkpoint; has this training finished its first epoch"):
        load_model(tmp_path / "young", "cpu")


def test_weights_of_another_network_are_refused(tiny_run, tmp_path):
    good = load_checkpoint(tiny_run / BEST)
    save_checkpoint(replace(good, options={**good.options, "channels": [4, 8, 16]}), tmp_path / "other.pt")
    with pytest.raises(InputError, match="do not fit its network"):
        load_model(tmp_path / "other.pt", "cpu")
    write_values({**values_of(good), "format": 99}, tmp_path / "later.pt")
    with pytest.raises(InputError, match="format 99"):
        load_model(tmp_path / "later.pt", "cpu")


def test_a_run_moved_elsewhere_still_predicts(tiny_run, tiny_prepared, tmp_path):
    shutil.copytree(tiny_run, tmp_path / "moved")
    scan = Dataset(tiny_prepared).scan("055")
    a, b = (load_model(root, "cpu").predict(scan).mask for root in (tiny_run, tmp_path / "moved"))
    assert np.array_equal(a, b)


def test_a_network_that_gives_nan_is_an_error_not_a_clean_scan(predictor):
    broken = copy.deepcopy(predictor.model.net)
    next(broken.body.parameters()).data.fill_(float("nan"))
    with pytest.raises(RunError, match="the network gave NaN"):
        with_model(predictor, net=broken).predict(tiny.head(1)[0])


def test_predicting_a_folder_leaves_out_its_masks_and_what_was_predicted_before(tiny_run, tmp_path, monkeypatch):
    scan, mask = tiny.head(3)
    io.write_scan(scan, tmp_path / "S/one.nii.gz")
    io.write_mask(scan, mask, tmp_path / "S/one_mask.nii.gz")
    io.write_scan(scan, tmp_path / "S/lone_mask.nii.gz")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        done = list(predict_files(tiny_run, [tmp_path / "S"], "S/out", device="cpu", overwrite=True))
        assert sorted(path.name for path, _ in done) == ["lone_mask.nii.gz", "one.nii.gz"]


def test_what_a_folder_holds_and_predict_cannot_read_is_named(tmp_path):
    scan, _ = tiny.head(3)
    folder = tmp_path / "S"
    io.write_scan(scan, folder / "one.nii.gz")
    io.write_scan(scan, folder / "named.nii.gz" / "two.nii.gz")  # as some archives are unpacked
    (folder / "README.txt").write_text("")
    (folder / "sheet.png").write_text("")
    found, failed = find_scans([folder], tmp_path / "out")
    assert sorted(scan.path.name for scan in found) == ["one.nii.gz", "two.nii.gz"] and failed == []
    (folder / "gone.nii.gz").symlink_to(folder / "nowhere")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "other.mha").write_text("")
    (folder / "IM0001").write_bytes(bytes(128) + b"DICM")
    found, failed = find_scans([folder], tmp_path / "out")
    assert len(found) == 2
    told = [str(error) for _, error in failed]
    assert len(told) == 4 and all("\n" not in text for text in told)
    assert f"{folder}/gone.nii.gz: is a link that leads nowhere" in told
    assert f"{folder}/IM0001: cannot be read as DICOM: nothing in it is known" in told
    assert any("other.mha: is MetaImage" in text for text in told) and any("linked: is a link" in text for text in told)


def test_a_checkpoint_whose_archive_lies_is_refused(tiny_run, tmp_path):
    # The "directory" bit on an entry: zipfile finds nothing wrong, and torch hands out memory that nobody wrote.
    whole = (tiny_run / BEST).read_bytes()
    entry = max(zipfile.ZipFile(tiny_run / BEST).infolist(), key=lambda info: info.file_size)
    start = whole.rindex(entry.filename.encode()) - 46
    assert whole[start : start + 4] == b"PK\x01\x02"
    broken = bytearray(whole)
    broken[start + 38] |= 0x10
    (tmp_path / "broken.pt").write_bytes(broken)
    with pytest.raises(InputError, match=r"broken.pt: (is damaged|is cut|cannot be read)"):
        load_model(tmp_path / "broken.pt", "cpu")


def test_no_bit_of_a_checkpoint_can_flip_unseen(tiny_run, tmp_path):
    whole = (tiny_run / BEST).read_bytes()
    weights = load_model(tiny_run, "cpu").model.net.state_dict()
    random = np.random.default_rng(0)
    directory = whole.index(b"PK\x01\x02")
    places = [*random.integers(0, len(whole), 60), *random.integers(directory, len(whole), 140)]
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= 1 << int(random.integers(8))
        (tmp_path / "broken.pt").write_bytes(broken)
        try:
            found = load_model(tmp_path / "broken.pt", "cpu").model.net.state_dict()
        except HemotorchError as error:
            assert "broken.pt" in str(error)
        else:  # a bit that means nothing, such as one of a time
            assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_scans_named_one_by_one_are_predicted_wherever_the_output_goes(tiny_run, tmp_path, monkeypatch):
    scan, _ = tiny.head(3)
    io.write_scan(scan, tmp_path / "one.nii.gz")
    monkeypatch.chdir(tmp_path)
    ((_, result),) = predict_files(tiny_run, ["one.nii.gz"], ".", device="cpu")
    assert not isinstance(result, HemotorchError) and (tmp_path / "one_mask.nii.gz").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/one_mask.nii.gz").write_text("drawn by hand")
    ((_, result),) = predict_files(tiny_run, ["one.nii.gz"], "out", device="cpu")
    assert isinstance(result, HemotorchError) and "one_mask.nii.gz in out was not written by a prediction" in str(
        result
    )
    assert (tmp_path / "out/one_mask.nii.gz").read_text() == "drawn by hand"


def test_names_that_repeat_and_folders_without_scans_do_not_stop_the_others(tiny_run, tmp_path):
    scan, _ = tiny.head(3)
    for name in ("a.nii", "a.nii.gz", "b.nii.gz"):
        io.write_scan(scan, tmp_path / "n" / name)
    (tmp_path / "empty").mkdir()
    results = list(predict_files(tiny_run, [tmp_path / "empty", tmp_path / "n"], tmp_path / "out", device="cpu"))
    failed = [path.name for path, result in results if isinstance(result, HemotorchError)]
    assert failed == ["empty"] and len(results) == 4
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"n_a_nii.json", "n_a_nii_gz.json", "b.json"}


@pytest.mark.parametrize(("factor", "says"), [((1, 12.0), "pixel size"), ((0.001, 1), "slice distance")])
def test_sizes_no_head_has(predictor, factor, says):
    scan, _ = tiny.head(1)
    slices, pixels = factor
    odd = Scan(scan.hu, scan.slice_origins_mm * slices, scan.row_step_mm * pixels, scan.column_step_mm * pixels)
    with pytest.raises(InputError, match=f"does not look like a head CT: .*is its {says} right"):
        predictor.predict(odd, any_anatomy=False)
    assert any(says in text for text in predictor.predict(odd).warnings)


class _Band(torch.nn.Module):
    """Bleeding if the middle slice and the mean of its neighbours are bright and no bone is near; no weights."""

    slices, multiple, outputs = 3, 1, 1

    def __init__(self, reach_px: int):
        super().__init__()
        self.reach_px = reach_px

    def forward(self, hu: torch.Tensor) -> torch.Tensor:
        """(N, 3, rows, columns) HU to (N, 1, rows, columns) logits."""
        size = 2 * self.reach_px + 1
        bone = torch.nn.functional.max_pool2d(hu, size, 1, self.reach_px).amax(1) > 130
        bright = torch.minimum(hu[:, 1], (hu[:, 0] + hu[:, 2]) / 2) - 50
        return torch.where(bone, -20.0, bright / 4)[:, None]


def _head_of(slice_mm: float, lens_mm: float) -> Scan:
    """60 mm of a tiny head with a lens of blood, scanned at 0.625 mm and averaged to slices of `slice_mm`."""
    fine, _ = tiny.head(3, bleeding=False, slices=96)
    rows, columns = np.mgrid[: tiny.SIZE, : tiny.SIZE]
    heights = (np.arange(96) - 47.5)[:, None, None] * 0.625
    lens = np.hypot(np.hypot(rows - 32, columns - 30) / 9, heights / lens_mm) < 1
    hu = fine.hu + 45 * lens
    thick = hu.reshape(round(60 / slice_mm), -1, tiny.SIZE, tiny.SIZE).mean(axis=1)
    return even_scan(np.rint(thick).astype(np.int16), tiny.PIXEL_MM, slice_mm)


def test_thin_slices_give_the_ml_of_the_trained_distance_and_are_said(predictor):
    assert predictor.model.spacing == SliceSpacing(5.0, 5.0, 5.0)
    band = with_model(predictor, net=_Band(1))
    own = band.predict(_head_of(5.0, 8))
    assert own.volume_ml["total"] > 5 and not [text for text in own.warnings if "apart" in text]
    for slice_mm in (2.5, 1.25, 0.625):
        scan = _head_of(slice_mm, 8)
        thin = band.predict(scan)
        assert thin.mask.shape == scan.shape
        assert thin.volume_ml["total"] == pytest.approx(own.volume_ml["total"], rel=0.1)
        expected = f"slices are {slice_mm:.3g} mm apart, the network was trained on 5 mm"
        assert any(expected in text for text in thin.warnings)
    by_index = with_model(band, spacing=None).predict(_head_of(0.625, 8))
    assert by_index.volume_ml["total"] > 1.1 * own.volume_ml["total"]


def test_the_trained_distance_gives_what_neighbours_by_index_give_bit_for_bit(predictor):
    scan, _ = tiny.head(9)
    by_index = with_model(predictor, spacing=None)
    assert np.array_equal(predictor.predict(scan).probability, by_index.predict(scan).probability)
    tiled = with_model(predictor, tiles=Tiles(32, 32))
    tiled_by_index = with_model(tiled, spacing=None)
    assert np.array_equal(tiled.predict(scan).probability, tiled_by_index.predict(scan).probability)
    thin = _head_of(1.25, 8)
    assert not np.array_equal(tiled.predict(thin).probability, tiled_by_index.predict(thin).probability)


def test_a_checkpoint_without_its_slice_distances_predicts_by_index_and_says_so(tiny_run, predictor, tmp_path):
    kept = load_checkpoint(tiny_run / BEST)
    values = values_of(kept)
    del values["deployment"]
    recipe = asdict(Run.open(tiny_run).recipe)
    write_values({**values, "recipe": recipe, "format": 4}, tmp_path / "old.pt")
    old = load_model(tmp_path / "old.pt", "cpu")
    thin = _head_of(1.25, 8)
    found = old.predict(thin)
    assert np.array_equal(found.probability, with_model(predictor, spacing=None).predict(thin).probability)
    assert "slices are 1.25 mm apart; the distance that the network was trained on is unknown" in found.warnings


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("slice_spacing", {"usual_mm": -1.0}, "slice_spacing"),
        ("task_name", "type", "'task_name' is one of bleeding, types"),
        ("precision", "fp31", "'precision' is one of auto"),
        ("tiles", {"size_px": 16, "stride_px": 32}, "must be from 1 to tiles.size_px"),
        ("predict", {"threshold": 1.5}, "predict.threshold"),
        ("threshold", 0.5, "unknown key 'threshold'"),
    ],
)
def test_a_deployment_that_cannot_be_is_refused(tiny_run, tmp_path, key, value, says):
    values = values_of(load_checkpoint(tiny_run / BEST))
    values["deployment"][key] = value
    write_values(values, tmp_path / "bad.pt")
    with pytest.raises(InputError, match=f"bad.pt: is damaged .*{says}"):
        load_model(tmp_path / "bad.pt", "cpu")


@pytest.mark.long
@pytest.mark.parametrize("head", ["painted1", "painted3"])
def test_real_heads_resampled_through_the_plane_keep_their_ml(predictor, shared_data, head):
    """From 5.24 to 0.65 mm by cubic splines; taken by index, the neighbours agree where they should not."""
    band = with_model(predictor, net=_Band(6), spacing=SliceSpacing(5.2, 4.0, 6.5))
    scan = io.read_scan(shared_data / "head-ct-painted" / f"{head}.nii.gz")
    own = band.predict(scan).volume_ml["total"]
    places = (np.arange(len(scan.hu) * 8) + 0.5) / 8 - 0.5
    spline = CubicSpline(np.arange(len(scan.hu)), scan.hu.astype(np.float32), axis=0)
    hu = np.stack([np.rint(spline(one)).astype(np.int16) for one in places.clip(0, len(scan.hu) - 1)])
    origins = scan.slice_origins_mm[0] + places[:, None] * np.diff(scan.slice_origins_mm, axis=0).mean(axis=0)
    thin = replace(scan, hu=hu, slice_origins_mm=origins, slice_numbers=(), source=None)
    found = band.predict(thin)
    assert found.volume_ml["total"] == pytest.approx(own, rel=0.15, abs=1)
    assert any("slices are 0.65" in text for text in found.warnings)
    by_index = with_model(band, spacing=None).predict(thin).volume_ml["total"]
    assert by_index - own > 2 * abs(found.volume_ml["total"] - own)
