"""An ONNX file as a model: what `hemotorch export` writes, run by onnxruntime, without torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from hemotorch import __version__
from hemotorch.errors import InputError, OptionError, RunError
from hemotorch.grid import SliceSpacing
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.stacks import StackReader
from hemotorch.system import limits, onnx_file, threads
from hemotorch.system.files import jsonable
from hemotorch.system.records import build, record

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

SUFFIX = ".onnx"
FORMAT = 2  #: of the note; a change that older versions cannot read raises it. 1 has no options
NOTE = "hemotorch"  #: the name of the note in the file's metadata
INPUT, OUTPUT = "hu", "probability"  #: names of the graph's input and output
ADVICE = "export it again with `hemotorch export RUN --to onnx`"


@record
class OnnxNote:
    """What an ONNX file says of its network besides the graph, as JSON in the metadata entry `hemotorch`.

    hemotorch: the version that wrote it. net: the network's name. slices: that it sees of each. multiple: rows and
    columns are multiples of it. epoch: of its training. split: the name of the split it was trained with. trained_on:
    digests of the scans that were trained on or chosen by, so that they are not scored as new ones; none if unknown.
    options: what `hemotorch.nets.build` makes the network from, so that it can be trained on; None in format 1.
    """

    format: int
    hemotorch: str
    net: str
    slices: Annotated[int, Field(ge=1, le=31)]
    multiple: Annotated[int, Field(ge=1, le=2**12)]
    deployment: Deployment
    epoch: int
    split: str = ""
    trained_on: tuple[str, ...] = ()
    options: dict[str, Any] | None = None

    def to_notes(self) -> dict[str, str]:
        """The file's metadata: all of this in one entry."""
        return {NOTE: json.dumps(jsonable(dataclasses.asdict(self)), allow_nan=False)}


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX graph, HU in and probabilities out, in fp32 on the CPU.

    mirror: also look at the mirrored slice, and average. threads: how many slices are computed at a time, each by one
    thread.
    """

    session: InferenceSession = field(repr=False)
    reader: StackReader
    multiple: int
    mirror: bool
    name: str
    threads: int = 1

    @property
    def spacings(self) -> tuple[SliceSpacing | None, ...]:
        """See `Model`."""
        return (self.reader.spacing,)

    def batch(self, rows: int, columns: int) -> int:
        """See `Model`."""
        return self.reader.batch(rows, columns)

    def without_mirror(self) -> OnnxModel:
        """See `Model`."""
        return dataclasses.replace(self, mirror=False)

    def probabilities(
        self, hu: np.ndarray, positions_mm: np.ndarray | None = None, slices: Sequence[int] | None = None
    ) -> np.ndarray:
        """See `Model.probabilities`."""
        return self.reader.probabilities(self._forward, hu, positions_mm, slices)

    def _forward(self, stacks: np.ndarray) -> np.ndarray:
        """(m, slices, H, W) HU to (m, channels, H, W) float32 probabilities."""
        hu = np.ascontiguousarray(stacks, np.float32)
        if not self.mirror:
            return self._run_side_by_side(hu)
        both = self._run_side_by_side(np.concatenate([hu, hu[..., ::-1]]))
        straight, mirrored = both[: len(hu)], both[len(hu) :]
        return (straight + mirrored[..., ::-1]) / np.float32(2)

    def _run_side_by_side(self, hu: np.ndarray) -> np.ndarray:
        """The graph's answer, the slices shared out between the threads."""
        parts = np.array_split(hu, min(self.threads, len(hu)))
        if len(parts) == 1:
            return self._run(hu)
        # onnxruntime's own threads share each layer, and wait for one another after it. A thread with slices of its own
        # waits for nobody.
        with ThreadPoolExecutor(len(parts)) as pool:
            return np.concatenate(list(pool.map(self._run, parts)))

    def _run(self, hu: np.ndarray) -> np.ndarray:
        try:
            (probability,) = self.session.run([OUTPUT], {INPUT: hu})
        except Exception as error:  # onnxruntime has many kinds, all of its own
            if _is_memory(error):
                raise MemoryError(str(error)) from error
            what = f"its graph fails on slices of {hu.shape[2]} x {hu.shape[3]} pixels ({_first_line(error)})"
            raise RunError(what, self.name, ADVICE) from error
        if probability.shape != (len(hu), self.reader.outputs, *hu.shape[2:]):
            what = f"its graph answers with shape {probability.shape} to slices of shape {hu.shape}"
            raise RunError(what, self.name, ADVICE)
        return np.asarray(probability, np.float32)


def read_note(path: Path) -> OnnxNote:
    """What an ONNX file says of its network. Raises InputError if it is not one of hemotorch, or damaged."""
    return _read(path)[0]


def load_onnx(path: Path, device: str = "auto") -> tuple[OnnxModel, Deployment]:
    """An ONNX file that `hemotorch export` wrote, ready to predict, and how it is used.

    Args:
        path: of the file.
        device: "auto" or "cpu"; onnxruntime runs it on the CPU, with as many threads as `threads.count` says.

    Raises:
        InputError: if the file is missing, damaged, too large, or not one of hemotorch.
        OptionError: for another device.
    """
    if device not in ("auto", "cpu"):
        todo = "use --device cpu or auto, or the run that it was exported from"
        raise OptionError(f"an ONNX model runs on the CPU, not on '{device}'", "--device", todo)
    note, content = _read(path)
    session = _session(content, path)
    outputs = len(note.deployment.task.channels)
    shapes = ([INPUT, note.slices], [OUTPUT, outputs])
    for (name, channels), graph_values in zip(shapes, (session.get_inputs(), session.get_outputs()), strict=True):
        alike = [(each.name, each.type, each.shape[1:2]) for each in graph_values]
        if alike != [(name, "tensor(float)", [channels])]:
            raise InputError(f"its graph has not the {name} that its network has", path, ADVICE)
    deployment = note.deployment
    reader = StackReader(note.slices, outputs, deployment.tiles, deployment.slice_spacing)
    count, _ = threads.count()
    return OnnxModel(session, reader, note.multiple, deployment.predict.mirror, path.name, count), deployment


def _read(path: Path) -> tuple[OnnxNote, bytes]:
    if not path.exists():
        raise InputError("no such model", path, "name a run folder, a checkpoint or an ONNX file of `hemotorch export`")
    try:
        opened = onnx_file.read(path, limits.max_unpacked())
    except onnx_file.OnnxFileError as error:
        raise InputError(str(error), path, ADVICE) from error
    except (OSError, MemoryError) as error:
        raise RunError(f"cannot be read ({error})", path) from error
    try:
        values = json.loads(opened.notes.get(NOTE, ""))
    except (ValueError, RecursionError) as error:
        raise InputError("does not say how its network is used", path, ADVICE) from error
    if isinstance(values, dict) and isinstance(values.get("format"), int) and values["format"] > FORMAT:
        raise InputError(f"was written in format {values['format']}; this hemotorch reads {FORMAT}", path, "update it")
    try:
        note = build(OnnxNote, values, path, ADVICE)
    except OptionError as error:  # values that do not go together, such as a stride longer than its blocks
        raise InputError(f"is damaged ({error})", path, ADVICE) from error
    return note, opened.content


def _session(content: bytes, path: Path) -> InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # see `OnnxModel._run_side_by_side`
    options.log_severity_level = 4  # its errors are raised, and told in one line
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has many kinds, all of its own
        if _is_memory(error):
            raise MemoryError(str(error)) from error
        raise InputError(f"onnxruntime does not take it ({_first_line(error)})", path, ADVICE) from error


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate" in text or "bad_alloc" in text


def _first_line(error: Exception) -> str:
    lines: list[Any] = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__


def write_deployed_otherwise(path: Path, out: Path, change: Callable[[Deployment], Deployment]) -> OnnxNote:
    """Writes the network of an ONNX file with another deployment, such as another threshold.

    Args:
        path: of the file.
        out: the file to write.
        change: the new deployment, from the old one.

    Returns:
        The old file's note.
    """
    note, content = _read(path)
    changed = dataclasses.replace(note, deployment=change(note.deployment))
    # Of notes of one name the last counts.
    out.write_bytes(onnx_file.with_notes(content, changed.to_notes()))
    return note


def new_note(
    net: str, options: dict[str, Any], slices: int, multiple: int, deployment: Deployment, epoch: int
) -> OnnxNote:
    """The note of a file that is written now; which scans it was trained on is not known yet."""
    return OnnxNote(FORMAT, __version__, net, slices, multiple, deployment, epoch, options=options)


def checked_content(path: Path) -> tuple[OnnxNote, bytes]:
    """What an ONNX file says of its network, and its bytes, looked through. Raises InputError as `load_onnx` does."""
    return _read(path)
