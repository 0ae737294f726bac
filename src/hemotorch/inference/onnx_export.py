"""A run's network as an ONNX file, compared at once with the torch network that it was made from."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx  # noqa: F401  the exporter needs it, and says so less well
import torch
from torch import Tensor, nn

from hemotorch import nets
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.grid import hu_to_working, place, slice_positions_mm
from hemotorch.inference.checkpoint import Checkpoint, load_checkpoint
from hemotorch.inference.onnx_model import INPUT, OUTPUT, SUFFIX, OnnxModel, load_onnx, new_note
from hemotorch.inference.predictor import Predictor
from hemotorch.inference.torch_model import TorchModel, probability_of
from hemotorch.io import read_scan
from hemotorch.phantom.case import make_case
from hemotorch.phantom.presets import preset
from hemotorch.run import BEST, Run
from hemotorch.scan import Scan
from hemotorch.system import onnx_file
from hemotorch.system.device import choose
from hemotorch.system.engine import Engine
from hemotorch.system.files import atomic

OPSET = 17  #: of ONNX; onnxruntime reads it since 1.12 (2022)
MOST_DIFFERENCE = 1e-3  #: of a probability: the two round differently, by up to 1e-5 in all networks tried
MOST_VOXELS = 1e-5  #: share of a scan's voxels that may be outlined otherwise, those at the very threshold
CASE = 4  #: of the preset `small`: a phantom with bleeding


@dataclass(frozen=True)
class OnnxComparison:
    """How far the ONNX file's answer for one scan is from the torch network's.

    name: of the scan. difference: the largest of all channels' probabilities, on the grid. voxels: of the scan.
    outlined: voxels that torch's mask outlines. differing: voxels whose mask differs, also in type alone.
    """

    name: str
    difference: float
    voxels: int
    outlined: int
    differing: int

    @property
    def alike(self) -> bool:
        """Whether both say the same but for rounding."""
        few = self.differing <= max(1, MOST_VOXELS * self.voxels)
        return self.difference <= MOST_DIFFERENCE and few

    @property
    def text(self) -> str:
        """The comparison in a line."""
        return (
            f"{self.name}: probabilities differ by at most {self.difference:.1e}; masks in {self.differing} of "
            f"{self.voxels:,} voxels ({self.outlined:,} outlined)"
        )


@dataclass(frozen=True)
class OnnxExport:
    """An ONNX file that was written: where, how large, and how it compares with the network it was made from."""

    path: Path
    megabytes: float
    comparisons: tuple[OnnxComparison, ...]


class DeployedNet(nn.Module):
    """HU (N, slices, rows, columns) float32 to probabilities (N, channels, rows, columns): window, network, softmax."""

    def __init__(self, net: nets.Net):
        super().__init__()
        self.window = net.window
        self.body = net.body

    def forward(self, hu: Tensor) -> Tensor:
        return probability_of(self.body(self.window(hu)))


def export_onnx(
    model: Path | str, out: Path | str | None = None, *, scans: Sequence[Path | str] = (), overwrite: bool = False
) -> OnnxExport:
    """Writes a run's best network as an ONNX file, and compares it with the torch network on a phantom.

    The window layer and the sigmoid or softmax are part of the graph: HU go in, probabilities come out, in any number
    of slices, with rows and columns in multiples of what the network wants. The metadata holds the deployment.

    Args:
        model: a run folder, or a checkpoint file.
        out: the file to write; None: beside the checkpoint.
        scans: files of scans to compare on too.
        overwrite: replace a file that is there.

    Raises:
        InputError: if the model or a scan cannot be read, or the file is there already.
        RunError: if the two do not answer alike; then no file is left.
    """
    root = Path(model)
    file = root / BEST if root.is_dir() else root
    if file.suffix == SUFFIX:
        raise InputError("is an ONNX file already", file, "name the run that it was made from")
    checkpoint = load_checkpoint(file)
    path = file.with_suffix(SUFFIX) if out is None else Path(out)
    if path.suffix != SUFFIX:
        raise OptionError(f"an ONNX file's name ends with {SUFFIX}, not '{path.suffix}'", "--out")
    if path.exists() and not overwrite:
        raise InputError("is there already", path, "add --overwrite or choose another --out")
    read = [read_scan(scan) for scan in scans]
    net = _network(checkpoint, file)
    split, trained_on = _training_scans(root)
    note = new_note(
        checkpoint.net, checkpoint.options, net.slices, net.multiple, checkpoint.deployment, checkpoint.epoch
    )
    note = replace(note, split=split, trained_on=trained_on)
    content = onnx_file.with_notes(_graph(net), note.to_notes())
    with atomic(path) as temporary:
        temporary.write_bytes(content)
        onnx_model, _ = load_onnx(temporary, "cpu")
        exported = Predictor(onnx_model, checkpoint.deployment)
        device = choose("cpu", Engine(precision="fp32"))
        reference = Predictor(TorchModel.of(net, device, checkpoint.deployment), checkpoint.deployment)
        _compare_sizes(net, onnx_model, path)
        comparisons = tuple(_compare(exported, reference, scan) for scan in [_phantom(), *read])
        for comparison in comparisons:
            if not comparison.alike:
                raise RunError(f"does not answer as its network does ({comparison.text})", path, "please report it")
    return OnnxExport(path, len(content) / 1e6, comparisons)


def _network(checkpoint: Checkpoint, file: Path) -> nets.Net:
    """The checkpoint's network in fp32 on the CPU, in evaluation mode. Raises InputError if its weights do not fit."""
    net = nets.build(checkpoint.net, **checkpoint.options)
    try:
        net.load_state_dict(checkpoint.weights)
    except RuntimeError as error:
        raise InputError("its weights do not fit its network", file, "was it altered? train again") from error
    return net.float().eval()


def _training_scans(root: Path) -> tuple[str, tuple[str, ...]]:
    """The name of a run's split, and the digests of the scans that it was trained on or chosen by.

    A checkpoint file alone says neither.
    """
    if not (root / "run.json").is_file():
        return "", ()
    record = Run.open(root).record
    cases = sorted({*record.split.train, *record.split.val})
    return record.split.name, tuple(record.scans[case] for case in cases)


def _graph(net: nets.Net) -> bytes:
    """The network as the bytes of an ONNX file."""
    buffer: Any = io.BytesIO()  # torch's types know paths only
    # Not the smallest size: lengths of 1 and the multiple itself are taken for fixed by some exporters.
    example = torch.zeros(2, net.slices, 2 * net.multiple, 3 * net.multiple)
    axes = {0: "slices", 2: "rows", 3: "columns"}
    # The exporter leaves all layers in the mode that the outermost had, which is training if nobody says otherwise.
    deployed = DeployedNet(net).eval()
    with warnings.catch_warnings(), torch.no_grad():
        # Of shapes that are compared while the graph is recorded; `_compare_sizes` sees what came of it.
        warnings.simplefilter("ignore")
        # The newer exporter (dynamo=True) needs onnxscript, and gives the same graph for these networks.
        torch.onnx.export(
            deployed,
            (example,),
            buffer,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axes, OUTPUT: axes},
            opset_version=OPSET,
            # Batch norm stays apart from the convolutions, so that `onnx_weights` finds all weights by their names.
            # onnxruntime joins the two when it loads the graph.
            training=torch.onnx.TrainingMode.PRESERVE,
            dynamo=False,
        )
    return buffer.getvalue()


def _compare_sizes(net: nets.Net, exported: OnnxModel, path: Path) -> None:
    """Raises RunError if the graph does not take other numbers of slices, rows and columns than it was made with."""
    rng = np.random.default_rng(0)
    deployed = DeployedNet(net).eval()
    least = -(-32 // net.multiple)
    for slices, rows, columns in ((1, least + 1, least), (3, least, least + 2)):
        hu = rng.normal(30, 40, (slices, rows * net.multiple, columns * net.multiple)).astype(np.int16)
        stacks = np.repeat(hu[:, None], net.slices, axis=1).astype(np.float32)
        with torch.inference_mode():
            expected = deployed(torch.from_numpy(stacks)).numpy()
        (answer,) = exported.session.run([OUTPUT], {INPUT: stacks})
        if answer.shape != expected.shape or np.abs(answer - expected).max() > MOST_DIFFERENCE:
            what = f"does not answer as its network does for {slices} slices of {hu.shape[1]} x {hu.shape[2]} pixels"
            raise RunError(what, path, "please report it")


def _compare(exported: Predictor, reference: Predictor, scan: Scan) -> OnnxComparison:
    placement = place(reference.grid, scan)
    working, positions = hu_to_working(scan.hu, placement), slice_positions_mm(scan)
    expected = reference.model.probabilities(working, positions)
    answer = exported.model.probabilities(working, positions)
    mask, expected_mask = exported.predict(scan).mask, reference.predict(scan).mask
    return OnnxComparison(
        name=scan.name,
        difference=float(np.abs(answer - expected).max()),
        voxels=mask.size,
        outlined=int(np.count_nonzero(expected_mask)),
        differing=int(np.count_nonzero(mask != expected_mask)),
    )


def _phantom() -> Scan:
    return replace(make_case(replace(preset("small"), vary=0.0), CASE).scan, name="phantom")
