"""Networks that tell types of bleeding apart: which task is trained, what is predicted, and several models as one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import hemotorch
import tiny
from hemotorch import io, nets
from hemotorch.cli.commands import models_and_scans
from hemotorch.data import layouts
from hemotorch.data.dataset import Dataset
from hemotorch.data.prepare import prepare
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.grid import Grid, hu_to_working, place
from hemotorch.inference.checkpoint import load_checkpoint, save_checkpoint
from hemotorch.inference.load import load_model
from hemotorch.inference.model import Ensemble
from hemotorch.inference.predictor import Predictor, with_types
from hemotorch.inference.studies import predict_files
from hemotorch.inference.study import StudyRecord
from hemotorch.labels import CODES, TYPES, UNTYPED
from hemotorch.recipe import Tiles
from hemotorch.run import BEST, LAST, Run
from hemotorch.scan import CaseInfo, Scan
from hemotorch.system.events import EpochEnd, Event, Stopped, listening
from hemotorch.system.records import to_values
from hemotorch.task import BLEEDING, TYPED
from hemotorch.training.loop import train
from hemotorch.training.task_choice import choose_task

DIM, BRIGHT = CODES["subdural"], CODES["intraventricular"]


def head(seed: int) -> tuple[Scan, np.ndarray]:
    """A tiny head with a bleeding of 50 HU on one side, called subdural, and one of 75 HU on the other."""
    scan, mask = tiny.head(seed, bleeding=False)
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: tiny.SIZE, : tiny.SIZE]
    hu = scan.hu.astype(int)
    for code, level, column in ((DIM, 50, 22), (BRIGHT, 75, 42)):
        row, middle = rng.integers(26, 39), rng.integers(1, tiny.SLICES - 1)
        heights = (np.arange(tiny.SLICES) - middle)[:, None, None]
        ball = np.hypot(np.hypot(rows - row, columns - column) / 6, heights / 1.6) < 1
        hu[ball] = level + rng.normal(0, 3, ball.sum())
        mask[ball] = code
    return replace(scan, hu=hu.astype(np.int16)), mask


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten heads with masks that name the types."""
    root = tmp_path_factory.mktemp("types")
    for number in range(10):
        scan, mask = head(number)
        io.write_scan(scan, root / "data" / "images" / f"{number}.nii.gz")
        io.write_mask(scan, mask, root / "data" / "masks" / f"{number}.nii.gz")
    prepare(root / "data", root / "prepared")
    return root / "prepared"


@pytest.fixture(scope="module")
def typed_run(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training on them."""
    root = tmp_path_factory.mktemp("types") / "run"
    settings = ("data.task='auto'", "train.epochs=8", "train.steps_per_epoch=20", "net.options.slices=1")
    train(prepared, root, tiny.recipe(*settings), device="cpu")
    return root


@pytest.fixture(scope="module")
def typed(typed_run: Path) -> Predictor:
    return load_model(typed_run, "cpu")


def test_types_are_told_apart(typed: Predictor) -> None:
    scan, mask = head(100)
    result = typed.predict(scan)
    assert result.task == TYPED and typed.deployment.task == TYPED
    assert result.probability is not None and result.probability.shape == scan.shape
    for code in (DIM, BRIGHT):
        both = ((result.mask == code) & (mask == code)).sum()
        assert 2 * both / ((result.mask == code).sum() + (mask == code).sum()) > 0.6
    assert list(result.volume_ml) == ["total", *TYPES]
    assert result.volume_ml["epidural"] == 0
    assert result.volume_ml["subdural"] == pytest.approx(scan.volume_ml(result.mask == DIM))
    assert sum(result.volume_ml[name] for name in TYPES) == pytest.approx(result.volume_ml["total"])


def test_what_is_written_holds_codes_and_ml_of_each_type(typed_run: Path, tmp_path: Path) -> None:
    scan, _ = head(101)
    io.write_scan(scan, tmp_path / "a.nii.gz")
    ((_, result),) = predict_files(typed_run, [tmp_path / "a.nii.gz"], tmp_path / "out", device="cpu")
    assert isinstance(result, StudyRecord)
    stored = json.loads((tmp_path / "out" / "a.json").read_text())
    assert stored == to_values(result) and list(stored["volume_ml"]) == ["total", *TYPES]
    codes = np.asarray(nibabel.load(tmp_path / "out" / "a_mask.nii.gz").dataobj)
    assert {DIM, BRIGHT} <= set(np.unique(codes)) <= {0, *CODES.values()}
    voxel_ml = scan.voxel_ml[0]
    assert stored["volume_ml"]["subdural"] == pytest.approx((codes == DIM).sum() * voxel_ml, abs=1e-3)


def test_the_type_of_a_voxel_is_the_most_probable_one_on_the_scans_pixels(typed: Predictor) -> None:
    """Against all types brought back to every pixel of every slice."""
    scan, _ = head(102)
    result = typed.predict(scan)
    placement = place(typed.grid, scan)
    probabilities = typed.model.probabilities(hu_to_working(scan.hu, placement))
    everywhere = np.stack([placement.from_working(channel) for channel in probabilities[: TYPED.bleeding]])
    codes = everywhere.argmax(axis=0) + 1
    agree = (codes == result.mask)[result.mask > 0]
    assert result.mask.any() and agree.mean() > 0.999  # but for two that are equal to rounding
    assert np.array_equal(result.mask > 0, (typed.deployment.predict.threshold <= result.probability))


@pytest.mark.parametrize("grid", [Grid(), Grid(4.0, 48, 8)])
def test_types_are_asked_for_where_something_is_outlined_and_only_there(grid: Grid) -> None:
    scan, _ = head(1)
    placement = place(grid, scan)
    mask = np.zeros(scan.shape, np.uint8)
    mask[2, 20:25, 30:40] = 1
    types = np.zeros((5, *placement.working), np.float32)
    types[3] = 0.5
    result = with_types(mask, {2: types}, placement, TYPED)
    assert np.array_equal(result, 4 * mask) and result.dtype == np.uint8
    assert with_types(mask, {}, placement, BLEEDING) is mask


def test_several_channels_are_probabilities_that_exclude_each_other(typed: Predictor) -> None:
    hu = np.random.default_rng(0).integers(-100, 100, (9, 48, 48)).astype(np.int16)
    for model in (typed.model, replace(typed.model, mirror=False), replace(typed.model, tiles=Tiles(16, 8))):
        found = model.probabilities(hu)
        assert found.shape == (7, 9, 48, 48) and found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)
        part = model.probabilities(hu, slices=range(3, 6))
        np.testing.assert_allclose(part, found[:, 3:6], atol=1e-6)


def test_a_typed_network_that_gives_nan_is_an_error(typed: Predictor) -> None:
    net = nets.build(typed.model.net.name, **typed.model.net.options).eval()
    next(net.body.parameters()).data.fill_(float("nan"))
    with pytest.raises(RunError, match="the network gave NaN"):
        replace(typed, model=replace(typed.model, net=net)).predict(head(1)[0])


def weights(root: Path) -> dict[str, Any]:
    return load_checkpoint(root / LAST).trainer["net"]


def test_a_run_keeps_the_task_it_was_started_with(prepared: Path, typed_run: Path, tmp_path: Path) -> None:
    record = json.loads((typed_run / "run.json").read_text())
    assert record["task"] == Run.open(typed_run).record.task == "types"
    assert record["task_reason"].startswith("types are named in ") and record["task_reason"].endswith("with bleeding")
    # Once more from its start, and as a run of a version that knew one task.
    shutil.copytree(typed_run, tmp_path / "old")
    for name in (BEST, LAST, "metrics.jsonl"):
        (tmp_path / "old" / name).unlink()
    del record["task"], record["task_reason"]
    (tmp_path / "old" / "run.json").write_text(json.dumps(record))
    train(prepared, tmp_path / "old", device="cpu", resume=True)
    assert load_checkpoint(tmp_path / "old" / BEST).deployment.task == BLEEDING


def test_a_typed_run_that_is_killed_ends_bit_for_bit_like_one_that_was_not(prepared: Path, tmp_path: Path) -> None:
    recipe = tiny.recipe("data.task='types'", "train.epochs=2", "train.steps_per_epoch=5")

    def stop(event: Event) -> None:
        if isinstance(event, EpochEnd):
            raise Stopped

    train(prepared, tmp_path / "whole", recipe, device="cpu")
    with pytest.raises(Stopped), listening(stop):
        train(prepared, tmp_path / "stopped", recipe, device="cpu")
    assert load_checkpoint(tmp_path / "stopped" / LAST).epoch == 1
    train(prepared, tmp_path / "stopped", device="cpu", resume=True)
    whole, stopped = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_resident_and_streamed_slices_train_alike(prepared: Path, tmp_path: Path) -> None:
    for memory in ("resident", "stream"):
        settings = ("data.task='types'", "train.epochs=1", "train.steps_per_epoch=3", f"data.memory='{memory}'")
        train(prepared, tmp_path / memory, tiny.recipe(*settings), device="cpu")
    resident, streamed = weights(tmp_path / "resident"), weights(tmp_path / "stream")
    assert all(torch.equal(resident[name], streamed[name]) for name in resident)


def untyped(root: Path, named: int) -> Dataset:
    """Four heads in the CT-ICH layout with bleeding of unknown type, the slices of `named` of them labelled."""
    infos = []
    for number in range(4):
        scan, mask = head(number)
        types = {
            slice_number: frozenset({"subdural"} if mask[index].any() else ())
            for index, slice_number in enumerate(scan.slice_numbers)
        }
        name = f"{49 + number:03d}"
        infos.append(CaseInfo(name, name, 60.0, "F", types, hemorrhage=True))
        untyped_mask = np.where(mask > 0, UNTYPED, 0).astype(np.uint8)
        layouts.write_case("ct-ich", root / "data", name, scan, untyped_mask, infos[-1])
    if named:
        layouts.write_tables("ct-ich", root / "data", infos[:named])
    prepare(root / "data", root / "prepared")
    return Dataset(root / "prepared")


def test_the_task_follows_from_what_masks_and_labels_name(prepared: Path, tmp_path: Path) -> None:
    dataset = Dataset(prepared)
    everything = {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    assert choose_task("auto", dataset, everything)[0] == TYPED
    assert choose_task("bleeding", dataset, everything) == (BLEEDING, "as its recipe says")
    assert choose_task("types", dataset, everything) == (TYPED, "as its recipe says")
    assert choose_task("auto", dataset, {})[0] == BLEEDING
    with pytest.raises(OptionError, match="unknown task 'typs'; did you mean 'types'"):
        choose_task("typs", dataset, everything)


@pytest.mark.parametrize(("named", "task"), [(0, BLEEDING), (1, BLEEDING), (2, TYPED), (4, TYPED)])
def test_half_of_the_slices_with_bleeding_are_enough(tmp_path: Path, named: int, task: object) -> None:
    dataset = untyped(tmp_path, named)
    bleeding = {row.case: () for row in dataset.slices}
    for row in dataset.slices:
        if row.positive_pixels and len(bleeding[row.case]) < 2:  # as many of each scan
            bleeding[row.case] += (row.index,)
    chosen, reason = choose_task("auto", dataset, bleeding)
    assert chosen == task
    assert reason == f"types are named in {2 * named} of 8 slices with bleeding"


def test_types_are_not_trained_if_nothing_names_one(tmp_path: Path) -> None:
    dataset = untyped(tmp_path, 0)
    everything = {case: tuple(range(len(dataset.rows[case]))) for case in dataset.cases}
    with pytest.raises(OptionError, match=r"data.task: none of the \d+ slices with bleeding .* choose 'auto'"):
        choose_task("types", dataset, everything)
    assert choose_task("bleeding", dataset, everything)[0] == BLEEDING


def altered(typed_run: Path, path: Path, seed: int, **changes: Any) -> Path:
    """A checkpoint like the run's with other weights, and with these fields of its deployment changed."""
    checkpoint = load_checkpoint(typed_run / BEST)
    generator = torch.Generator().manual_seed(seed)
    mixed = {
        name: value * (1 + 0.1 * torch.rand(value.shape, generator=generator)) if value.is_floating_point() else value
        for name, value in checkpoint.weights.items()
    }
    deployment = replace(checkpoint.deployment, model=f"network {seed}", **changes)
    save_checkpoint(replace(checkpoint, weights=mixed, deployment=deployment, trainer={}), path)
    return path


def test_several_models_are_averaged_as_one(typed_run: Path, tmp_path: Path) -> None:
    scan, _ = head(103)
    paths = [typed_run, altered(typed_run, tmp_path / "b.pt", 1), altered(typed_run, tmp_path / "c.pt", 2)]
    alone = [load_model(path, "cpu") for path in paths]
    together = load_model(paths, "cpu")
    assert isinstance(together.model, Ensemble)
    hu = np.random.default_rng(0).integers(-100, 100, (4, 48, 48)).astype(np.int16)
    mean = np.mean([one.model.probabilities(hu) for one in alone], axis=0)
    np.testing.assert_allclose(together.model.probabilities(hu), mean, atol=1e-6)
    result = together.predict(scan)
    each = [one.predict(scan).probability for one in alone]
    assert not np.allclose(each[0], each[1], atol=1e-3)
    np.testing.assert_allclose(result.probability, np.mean(each, axis=0), atol=1e-5)
    assert result.model.startswith("3 networks: fast (compact), epoch 8 of 8; network 1; network 2")
    again = hemotorch.predict(paths, scan, device="cpu")
    assert np.array_equal(again.mask, result.mask)
    ((_, written),) = predict_files(paths, [_written(scan, tmp_path / "s.nii.gz")], tmp_path / "out", device="cpu")
    assert isinstance(written, StudyRecord) and written.model == result.model


def _written(scan: Scan, path: Path) -> Path:
    io.write_scan(scan, path)
    return path


def test_one_model_of_a_list_is_that_model(typed_run: Path) -> None:
    scan, _ = head(104)
    one, listed = load_model(typed_run, "cpu"), load_model([typed_run], "cpu")
    assert np.array_equal(one.predict(scan).probability, listed.predict(scan).probability)
    with pytest.raises(InputError, match="no model is named"):
        load_model([], "cpu")


def test_models_that_do_not_go_together_are_named(typed_run: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="answers the task 'bleeding'") as caught:
        load_model([typed_run, tiny_run], "cpu")
    assert str(typed_run) in str(caught.value) and str(tiny_run) in str(caught.value)
    kept = load_checkpoint(typed_run / BEST).deployment
    for key, changes in {
        "grid.pixel_mm": {"grid": replace(kept.grid, pixel_mm=3.0)},
        "predict.threshold": {"predict": replace(kept.predict, threshold=0.25)},
        "tiles.size_px": {"tiles": Tiles(16, 8)},
        "engine.precision": {"precision": "fp32"},
    }.items():
        other = altered(typed_run, tmp_path / "other.pt", 1, **changes)
        with pytest.raises(InputError, match=f"other.pt: has {key} = ") as caught:
            load_model([typed_run, other], "cpu")
        assert str(typed_run) in str(caught.value)


def test_a_network_with_other_outputs_than_its_task_is_refused(typed_run: Path, tmp_path: Path) -> None:
    altered(typed_run, tmp_path / "odd.pt", 1, task_name="bleeding")
    with pytest.raises(InputError, match="odd.pt: its network has 7 outputs, not those of its task"):
        load_model(tmp_path / "odd.pt", "cpu")


def test_arguments_are_split_into_models_and_scans(tmp_path: Path) -> None:
    run, scans = tmp_path / "run", tmp_path / "scans"
    for folder in (run, scans):
        folder.mkdir()
    (run / "run.json").write_text("{}")
    a, b, c = str(run), "best.pt", str(scans)
    assert models_and_scans([], [a, c]) == ([a], [c])
    assert models_and_scans([], [a, b, c, "x.nii.gz"]) == ([a, b], [c, "x.nii.gz"])
    assert models_and_scans([], [a, "x.nii", b]) == ([a], ["x.nii", b])
    assert models_and_scans([b, a], [c, "x.nii"]) == ([b, a], [c, "x.nii"])
    with pytest.raises(OptionError, match="only models are named"):
        models_and_scans([], [a, b])
    with pytest.raises(OptionError, match="is a model, too"):
        models_and_scans([a], [b, c])
    with pytest.raises(InputError, match="no such file or folder"):
        models_and_scans([], [str(tmp_path / "missing-run"), c])
