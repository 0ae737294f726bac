"""ONNX files: what they answer, what they say of themselves, and that no damaged or foreign one is run."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import hemotorch
import tiny
from hemotorch import nets
from hemotorch.cli import main
from hemotorch.errors import HemotorchError, InputError, OptionError, RunError
from hemotorch.grid import SliceSpacing
from hemotorch.inference import onnx_export, onnx_model
from hemotorch.inference.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.onnx_export import export_onnx
from hemotorch.inference.onnx_weights import network_from_onnx
from hemotorch.io import write_scan
from hemotorch.recipe import GridSection, Predict, Tiles
from hemotorch.report.run_report import evaluate_run
from hemotorch.run import Run
from hemotorch.system import onnx_file
from hemotorch.task import TYPED


@pytest.fixture(scope="module")
def model(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as an ONNX file. Not to be written to."""
    return export_onnx(tiny_run, tmp_path_factory.mktemp("onnx") / "tiny.onnx").path


def checkpoint_of(net: nets.Net, path: Path, **deployed: Any) -> Path:
    """A network that was never trained, as a checkpoint file."""
    task = "types" if net.outputs > 1 else "bleeding"
    deployment = Deployment(task, GridSection(1.5, 96), Tiles(), Predict(), "auto", None, f"random {net.name}")
    save_checkpoint(Checkpoint(net.name, net.options, net.state_dict(), replace(deployment, **deployed), 0, 0), path)
    return path


NETS: list[tuple[str, dict[str, Any]]] = [
    ("compact", {"channels": [8, 16]}),
    ("compact", {"channels": [8, 16, 16], "outputs": len(TYPED.channels), "slices": 5, "windows": ["brain", [50, 90]]}),
    ("unet-medicaltorch", {"channels": 4}),
    ("unet-medicaltorch", {"channels": 4, "align_corners": True}),
    ("unet", {"channels": 4, "levels": 3}),
    ("unet", {"channels": 4, "levels": 3, "batch_norm": True, "padding": "valid"}),
    ("mlp", {"patch": 5, "hidden": [8]}),
]


def test_all_networks_are_tried() -> None:
    assert {name for name, _ in NETS} == set(nets.NETS)


@pytest.mark.parametrize(("name", "options"), NETS)
def test_every_network_answers_alike(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(3)
    net = nets.build(name, **options).eval()
    with torch.no_grad():
        for weight in net.parameters():  # away from the start, at which most answers are the same
            weight.add_(0.1 * torch.randn_like(weight))
    made = export_onnx(checkpoint_of(net, tmp_path / "net.pt"))
    assert made.path == tmp_path / "net.onnx" and made.comparisons[0].alike
    # onnxruntime itself, without anything of ours around it, and torch's network.
    session = onnxruntime.InferenceSession(made.path)
    size = max(32, 4 * net.multiple)
    hu = np.random.default_rng(1).normal(40, 30, (3, net.slices, size, size + net.multiple)).astype(np.float32)
    with torch.inference_mode():
        logits = net(torch.from_numpy(hu))
        expected = logits.sigmoid() if net.outputs == 1 else logits.softmax(1)
    (answer,) = session.run(None, {"hu": hu})
    assert answer.shape == expected.shape and np.ptp(answer) > 0.01
    np.testing.assert_allclose(answer, expected.numpy(), atol=1e-4)
    onnx.checker.check_model(onnx.load(made.path))
    # And back: all weights, batch norm's averages too, to train on from.
    again, deployment = network_from_onnx(made.path)
    assert deployment.model == f"random {name}" and not again.training
    for key, weight in net.state_dict().items():
        assert key.endswith("num_batches_tracked") or torch.equal(again.state_dict()[key], weight), key


@pytest.mark.parametrize(
    "deployed",
    [
        {"predict": Predict(mirror=True, min_ml=0.0, threshold=0.4)},
        {"tiles": Tiles(size_px=32, stride_px=24)},
        {"slice_spacing": SliceSpacing(9.0, 8.0, 10.0)},
    ],
)
def test_mirrored_slices_blocks_and_slabs_are_those_of_torch(deployed: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(5)
    net = nets.build("compact", channels=[8, 16], slices=3).eval()
    path = checkpoint_of(net, tmp_path / "net.pt", **deployed)
    scan, _ = tiny.head(5, slices=12)
    expected = hemotorch.predict(path, scan, device="cpu")
    answer = hemotorch.predict(export_onnx(path).path, scan)
    assert expected.probability is not None and answer.probability is not None
    np.testing.assert_allclose(answer.probability, expected.probability, atol=1e-5)


def test_a_run_and_its_file_outline_the_same(model: Path, tiny_run: Path) -> None:
    scan, _ = tiny.head(123)
    expected, answer = hemotorch.predict(tiny_run, scan, device="cpu"), hemotorch.predict(model, scan)
    assert answer.mask.any() and np.count_nonzero(answer.mask != expected.mask) <= 1
    assert answer.model == expected.model and answer.volume_ml["total"] == pytest.approx(expected.volume_ml["total"])
    both = hemotorch.predict([tiny_run, model], scan, device="cpu")
    assert both.model.startswith("2 networks") and np.count_nonzero(both.mask != expected.mask) <= 1


def test_a_file_without_weights_to_train_on_says_so(model: Path, tmp_path: Path) -> None:
    older = tmp_path / "older.onnx"
    note, content = onnx_model.checked_content(model)
    older.write_bytes(onnx_file.with_notes(content, replace(note, format=1, options=None).to_notes()))
    assert hemotorch.load_model(older).deployment == note.deployment
    with pytest.raises(InputError, match="kept no weights to train on"):
        network_from_onnx(older)


def test_any_number_of_threads_answers_the_same(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan, _ = tiny.head(123, slices=7)
    answers = []
    for number in (1, 3, 64):
        monkeypatch.setenv("HEMOTORCH_THREADS", str(number))
        predictor = hemotorch.load_model(model)
        assert predictor.model.threads == number
        answers.append(predictor.predict(scan).probability)
    for answer in answers[1:]:
        np.testing.assert_allclose(answer, answers[0], atol=1e-6)


def test_the_file_says_how_it_is_used(model: Path, tiny_run: Path) -> None:
    note = onnx_model.read_note(model)
    record = Run.open(tiny_run).record
    assert note.deployment == load_checkpoint(tiny_run / "best.pt").deployment
    used = {record.scans[case] for case in (*record.split.train, *record.split.val)}
    assert set(note.trained_on) == used and note.split == "patient"
    names = {entry.key for entry in onnx.load(model).metadata_props}
    assert names == {"hemotorch", "hemotorch.sha256"}
    assert not any(case in model.read_bytes().decode("latin1") for case in record.split.train if len(case) > 3)


def test_the_command_compares_and_predicts(model: Path, tiny_run: Path, tmp_path: Path, capsys: Any) -> None:
    write_scan(tiny.head(77)[0], tmp_path / "a.nii.gz")
    out = tmp_path / "m.onnx"
    command = ["export", str(tiny_run), "--to", "onnx", "--out", str(out), "--check", str(tmp_path / "a.nii.gz")]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("phantom: probabilities differ by at most ") and lines[1].startswith("a: ")
    assert lines[-1].startswith(f"wrote {out}")
    assert main(command) == 1 and "add --overwrite" in capsys.readouterr().err
    arguments = [str(tmp_path / "a.nii.gz"), "--out", str(tmp_path / "p"), "--threads", "1"]
    assert main(["predict", str(out), str(model), *arguments]) == 0
    assert (tmp_path / "p" / "a_mask.nii.gz").is_file()
    assert main(["predict", str(out), *arguments, "--device", "cuda"]) == 1
    assert "an ONNX model runs on the CPU" in capsys.readouterr().err


def test_one_that_answers_otherwise_is_not_left(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = onnx_export._graph

    def altered(net: nets.Net) -> bytes:
        with torch.no_grad():
            other = nets.build(net.name, **net.options).eval()
            other.load_state_dict(net.state_dict())
            other.body.last.bias.add_(0.05)  # type: ignore[union-attr, operator]
        return graph(other)

    monkeypatch.setattr(onnx_export, "_graph", altered)
    with pytest.raises(RunError, match="does not answer as its network does"):
        export_onnx(tiny_run, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_it_is_measured_on_scans_it_has_not_seen(
    model: Path, tiny_run: Path, tiny_prepared: Path, tmp_path: Path
) -> None:
    expected = evaluate_run(tiny_run, tmp_path / "run", device="cpu")
    answer = evaluate_run(model, tmp_path / "onnx", data=tiny_prepared)
    assert [scan.case for scan in answer.scans] == [scan.case for scan in expected.scans]
    assert answer.summary["dice"]["scan"]["mean"] == pytest.approx(expected.summary["dice"]["scan"]["mean"], abs=0.01)
    assert not answer.split["external"]
    with pytest.raises(InputError, match="name one with --data"):
        evaluate_run(model, tmp_path / "a")
    with pytest.raises(InputError, match="of its scans were trained on"):
        evaluate_run(model, tmp_path / "b", data=tiny_prepared, part="all")
    unknown = export_onnx(tiny_run / "best.pt", tmp_path / "unknown.onnx").path
    scores = evaluate_run(unknown, tmp_path / "c", data=tiny_prepared)
    assert scores.split["external"] and "is unknown" in " ".join(scores.split["warnings"])


def test_a_test_scan_that_was_trained_on_is_refused(model: Path, tiny_prepared: Path, tmp_path: Path) -> None:
    content = onnx_file.read(model, 2**30)
    note = onnx_model.read_note(model)
    dataset = hemotorch.Dataset(tiny_prepared)
    seen = dataset.digest(next(iter(dataset.splits["patient"].test)))
    altered = replace(note, trained_on=(*note.trained_on, seen))
    bare = onnx.load_from_string(content.content)
    del bare.metadata_props[:]
    (tmp_path / "m.onnx").write_bytes(onnx_file.with_notes(bare.SerializeToString(), altered.to_notes()))
    with pytest.raises(InputError, match="was trained on scans of its part 'test'"):
        evaluate_run(tmp_path / "m.onnx", tmp_path / "out", data=tiny_prepared)


# Files that are not as they should be.


def marked(graph: onnx.GraphProto, path: Path, model: Path) -> Path:
    """A graph that somebody gave our notes, with the right digest."""
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    notes = onnx_file.read(model, 2**30).notes
    path.write_bytes(onnx_file.with_notes(proto.SerializeToString(), notes))
    return path


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray] | None = None) -> onnx.GraphProto:
    shape = ["n", 3, "rows", "columns"]
    hu = helper.make_tensor_value_info("hu", TensorProto.FLOAT, shape)
    probability = helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["n", 1, "rows", "columns"])
    tensors = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    return helper.make_graph(nodes, "graph", [hu], [probability], tensors)


def test_one_of_another_origin(tmp_path: Path) -> None:
    graph = graph_of([helper.make_node("Relu", ["hu"], ["probability"])])
    path = tmp_path / "foreign.onnx"
    onnx.save(helper.make_model(graph), path)
    with pytest.raises(InputError, match="was not written by `hemotorch export`") as caught:
        hemotorch.load_model(path)
    assert "\n" not in str(caught.value)


def subgraph() -> onnx.NodeProto:
    inner = helper.make_graph([], "inner", [], [])
    return helper.make_node("If", ["hu"], ["probability"], then_branch=inner, else_branch=inner)


@pytest.mark.parametrize(
    ("node", "weights", "says"),
    [
        (helper.make_node("Tile", ["hu", "w"], ["probability"]), {"w": np.int64([1, 1, 9, 9])}, "not run here"),
        (subgraph(), {}, "not run here"),
        (helper.make_node("Relu", ["hu"], ["probability"], domain="com.evil"), {}, "not run here"),
        (helper.make_node("Resize", ["hu", "", "w"], ["probability"]), {"w": np.float32([1, 1, 9, 9])}, "times as"),
        (helper.make_node("Resize", ["hu", "", "", "w"], ["probability"]), {"w": np.int64([1, 1, 9, 9])}, "is not a"),
        (
            helper.make_node("ConvTranspose", ["hu", "w"], ["probability"], strides=[64, 64]),
            {"w": np.zeros((3, 1, 2, 2), np.float32)},
            "has a number over 2",
        ),
        (helper.make_node("Conv", ["hu", "w"], ["probability"], pads=[9999] * 4), {}, "has a number over 127"),
    ],
)
def test_a_graph_that_no_network_of_ours_has(
    node: onnx.NodeProto, weights: dict[str, np.ndarray], says: str, model: Path, tmp_path: Path
) -> None:
    path = marked(graph_of([node], weights), tmp_path / "m.onnx", model)
    with pytest.raises(InputError, match=says):
        hemotorch.load_model(path)


def test_weights_in_other_files_and_weights_that_are_claimed(model: Path, tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["hu", "w"], ["probability"])
    weights = {"w": np.zeros((1, 3, 1, 1), np.float32)}
    graph = graph_of([node], weights)
    graph.initializer[0].data_location = TensorProto.EXTERNAL
    entry = graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    with pytest.raises(InputError, match="lie in other files"):
        hemotorch.load_model(marked(graph, tmp_path / "a.onnx", model))
    graph = graph_of([node], weights)
    graph.initializer[0].dims[0] = 2**40
    with pytest.raises(InputError, match="is damaged: tensor 'w' holds 3 numbers"):
        hemotorch.load_model(marked(graph, tmp_path / "b.onnx", model))


def test_a_graph_with_other_inputs(model: Path, tmp_path: Path) -> None:
    graph = graph_of([helper.make_node("Relu", ["hu"], ["probability"])])
    graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(InputError, match="its graph has not the hu"):
        hemotorch.load_model(marked(graph, tmp_path / "m.onnx", model))


def test_a_large_one_is_not_read(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = tmp_path / "large.onnx"
    with open(large, "wb") as file:
        file.truncate(2**31)
    with pytest.raises(InputError, match="more than the 1,074 MB that are read"):
        hemotorch.load_model(large)
    monkeypatch.setattr(onnx_file, "MOST_NODES", 3)
    with pytest.raises(InputError, match="nodes, more than 3"):
        hemotorch.load_model(model)


def test_cut_and_altered_files_are_told_in_a_line(model: Path, tmp_path: Path) -> None:
    content, path = model.read_bytes(), tmp_path / "m.onnx"
    rng = random.Random(7)
    for number in range(300):
        changed = bytearray(content)
        if number % 3 == 0:
            del changed[rng.randrange(len(changed)) :]
        elif number % 3 == 1:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        else:  # the beginning and the notes at the end say most
            at = rng.choice([rng.randrange(200), len(changed) - 1 - rng.randrange(2000)])
            changed[at] = rng.randrange(256)
        if bytes(changed) == content:
            continue
        path.write_bytes(changed)
        try:
            hemotorch.load_model(path)
        except HemotorchError as error:
            assert "\n" not in str(error) and str(path) in str(error)
        else:  # only what no digest covers: the producer's name, the names of notes
            assert onnx_file.read(path, 2**30).notes == onnx_file.read(model, 2**30).notes


def test_altered_graphs_with_a_right_digest(model: Path, tmp_path: Path) -> None:
    """What somebody could make who means harm: an answer, or an error in one line."""
    notes = onnx_file.read(model, 2**30).notes
    original, path = onnx.load(model), tmp_path / "m.onnx"
    del original.metadata_props[:]
    rng, refused = random.Random(3), 0
    for number in range(60):
        altered = onnx.ModelProto()
        altered.CopyFrom(original)
        graph = altered.graph
        node = rng.choice([node for node in graph.node if node.input])
        match number % 5:
            case 0:
                node.op_type = rng.choice(sorted(onnx_file.OPERATORS))
            case 1:
                del node.input[:1]
            case 2:
                rng.choice([tensor for tensor in graph.initializer if tensor.dims]).dims[0] = rng.choice(
                    [0, 2**31, 2**62]
                )
            case 3:
                graph.node.remove(node)
            case _:
                node.input[0] = rng.choice(graph.node).output[0]
        path.write_bytes(onnx_file.with_notes(altered.SerializeToString(), notes))
        try:
            hemotorch.load_model(path).model.probabilities(np.full((2, 64, 64), 30, np.int16))
        except HemotorchError as error:
            refused += 1
            assert "\n" not in str(error) and "m.onnx" in str(error)
    assert refused > 30


def test_what_is_no_file_is_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        hemotorch.load_model(tmp_path / "none.onnx")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        hemotorch.load_model(tmp_path / "folder.onnx")
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError):
        hemotorch.load_model(tmp_path / "text.onnx")
    with pytest.raises(InputError, match="is an ONNX file already"):
        export_onnx(model, tmp_path / "m.onnx")
    with pytest.raises(OptionError, match=r"ends with \.onnx"):
        export_onnx(checkpoint_of(nets.build("mlp", patch=3), tmp_path / "a.pt"), tmp_path / "m.pb")


def test_a_run_exports_beside_its_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert export_onnx(run).path == run / "best.onnx"
    with pytest.raises(InputError, match="is there already"):
        export_onnx(run)
    assert Run.open(run).record.task == "bleeding"
