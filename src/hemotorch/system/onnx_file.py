"""Reads an ONNX file's own notes, and looks through it before onnxruntime is given it.

An ONNX file is a protocol buffer: fields, each a number, a type and a value, some of them messages of fields again
(onnx.proto of the ONNX project; the wire format is in Google's documentation of protocol buffers). The few fields that
matter here are read without the onnx package. Whatever could read other files, run code of its own, or ask for more
memory than a network of hemotorch does, is refused.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hemotorch.system.files import regular_file

MOST_BYTES = 2**30  #: of a file; a network may have 2**27 weights, 0.5 GB in fp32
MOST_WEIGHTS = 2**27  #: numbers in all tensors of a file, as `nets.MOST_WEIGHTS`
MOST_NODES = 10_000  #: of a graph; the largest of our networks has about 200
MOST_NUMBER = 127  #: of a node's whole numbers: kernels, paddings, strides. The largest kernel of a network is 127
MOST_STRIDE = 2  #: of what makes an image larger, and the largest scale of a Resize
MOST_NOTE = 2**24  #: bytes of a note

#: What the networks of `nets` are made of. No loop, no condition, nothing that makes a tensor from numbers alone but
#: Range, which mirrors an image's edges.
OPERATORS = {
    *("Conv", "ConvTranspose", "BatchNormalization", "MaxPool", "Relu", "Sigmoid", "Softmax", "Resize", "DepthToSpace"),
    *("Add", "Sub", "Mul", "Div", "Mod", "Min", "Clip", "Cast", "Constant", "Identity", "Range", "Shape"),
    *("Concat", "Split", "Slice", "Gather", "Reshape", "Squeeze", "Unsqueeze"),
}
LARGER = ("ConvTranspose", "Resize", "DepthToSpace")  #: operators that make an image larger

#: Numbers of fields, by message.
_MODEL_GRAPH, _MODEL_NOTE = 7, 14
_MODEL_PLAIN = {1, 2, 3, 4, 5, 6, 8}  # versions, names, opsets
_GRAPH_NODE, _GRAPH_TENSOR = 1, 5
_GRAPH_PLAIN = {2, 10, 11, 12, 13}  # name, text, inputs, outputs, shapes in between
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 1, 2, 4, 5, 7
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TENSOR, _ATTRIBUTE_INTS = 1, 3, 5, 8
_ATTRIBUTE_PLAIN = {2, 4, 7, 9, 13, 20}  # a float, text, floats, texts, documentation, the type
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_TYPED = {4: 4, 5: 0, 7: 0, 10: 8, 11: 0}  # numbers in fields of their own; 0: of changing length
_TENSOR_OUTSIDE = {13, 14}  # where a tensor lies in another file

_ITEM_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 16: 2}  # by type
_FLOAT = 1

DIGEST = "hemotorch.sha256"  #: the note that holds the digest of the graph and of the other notes


class OnnxFileError(ValueError):
    """What is wrong with the file, in words for the user."""


@dataclass(frozen=True)
class OnnxContent:
    """An ONNX file that was looked through.

    content: its bytes. notes: its metadata, text by name, without the digest.
    """

    content: bytes = field(repr=False)
    notes: dict[str, str]


Field = tuple[int, int | memoryview]  #: a field's number, and its whole number or its bytes


def read(path: Path, most_bytes: int) -> OnnxContent:
    """Reads an ONNX file that hemotorch wrote.

    Args:
        path: of the file.
        most_bytes: that it may have.

    Raises:
        OnnxFileError: if it is too large, cut, damaged, no ONNX file or not one of hemotorch.
        InputError: if it is no file.
        OSError: if it cannot be read.
    """
    size = regular_file(path, "ONNX file").st_size
    most = min(most_bytes, MOST_BYTES)
    if size > most:
        raise OnnxFileError(f"has {size / 1e6:,.0f} MB, more than the {most / 1e6:,.0f} MB that are read")
    content = path.read_bytes()
    graph: memoryview | None = None
    notes: dict[str, str] = {}
    for number, value in _fields(memoryview(content)):
        if number == _MODEL_GRAPH and graph is None:
            graph = _message(value)
        elif number == _MODEL_NOTE:
            name, text = _note(_message(value))
            notes[name] = text
        elif number not in _MODEL_PLAIN:
            raise OnnxFileError("is no ONNX file, or one with functions of its own")
    if graph is None:
        raise OnnxFileError("is no ONNX file (it holds no graph)")
    digest = notes.pop(DIGEST, None)
    if digest is None:
        raise OnnxFileError("was not written by `hemotorch export`: it does not say how its network is used")
    if digest != _digest(graph, notes):
        raise OnnxFileError("is damaged or was altered (its digest is wrong)")
    _check_graph(graph)
    return OnnxContent(content, notes)


def with_notes(content: bytes, notes: dict[str, str]) -> bytes:
    """An ONNX file's bytes with notes added to its metadata, and the digest that `read` compares."""
    graphs = [_message(value) for number, value in _fields(memoryview(content)) if number == _MODEL_GRAPH]
    (graph,) = graphs
    complete = {**notes, DIGEST: _digest(graph, notes)}
    # Fields of a message may come in any order, and repeated ones anywhere: these are put behind the rest.
    return content + b"".join(_written(_MODEL_NOTE, _written_note(*note)) for note in complete.items())


def _digest(graph: memoryview, notes: dict[str, str]) -> str:
    digest = hashlib.sha256(graph)
    for name in sorted(notes):
        digest.update(f"\n{name}\n{notes[name]}".encode())
    return digest.hexdigest()


def _check_graph(graph: memoryview) -> None:
    """Raises OnnxFileError for what no network of ours holds."""
    nodes: list[memoryview] = []
    weights = 0
    scales: dict[str, memoryview] = {}
    for number, value in _fields(graph):
        if number == _GRAPH_NODE:
            nodes.append(_message(value))
        elif number == _GRAPH_TENSOR:
            name, count = _check_tensor(_message(value))
            weights += count
            scales[name] = _message(value)
        elif number not in _GRAPH_PLAIN:
            raise OnnxFileError("holds tensors of a kind that is not read")
    if len(nodes) > MOST_NODES:
        raise OnnxFileError(f"has {len(nodes):,} nodes, more than {MOST_NODES:,}")
    resized: list[str] = []
    for node in nodes:
        count, scale_inputs = _check_node(node, scales)
        weights += count
        resized += scale_inputs
    if weights > MOST_WEIGHTS:
        raise OnnxFileError(f"has {weights:,} weights, more than {MOST_WEIGHTS:,}")
    for name in resized:
        if name not in scales or max(_floats(scales[name]), default=math.inf) > MOST_STRIDE:
            raise OnnxFileError(f"makes an image more than {MOST_STRIDE} times as large at once")


def _check_node(node: memoryview, constants: dict[str, memoryview]) -> tuple[int, list[str]]:
    """The numbers that a node's tensors hold, and the names of what it is resized by; a Constant is noted."""
    operator, domain, weights = "", "", 0
    inputs: list[str] = []
    outputs: list[str] = []
    attributes: list[memoryview] = []
    for number, value in _fields(node):
        if number == _NODE_OPERATOR:
            operator = _text(value)
        elif number == _NODE_DOMAIN:
            domain = _text(value)
        elif number == _NODE_INPUT:
            inputs.append(_text(value))
        elif number == _NODE_OUTPUT:
            outputs.append(_text(value))
        elif number == _NODE_ATTRIBUTE:
            attributes.append(_message(value))
    if domain not in ("", "ai.onnx") or operator not in OPERATORS:
        raise OnnxFileError(f"holds an operator that is not run here ({operator[:40]!r})")
    for attribute in attributes:
        tensor = _check_attribute(attribute, operator)
        if tensor is not None:
            weights += _check_tensor(tensor)[1]
            for name in outputs:
                constants[name] = tensor
    resized: list[str] = []
    if operator == "Resize":
        # Its inputs are the image, a region of interest, the scales and the wanted size.
        if len(inputs) != 3:
            raise OnnxFileError("resizes an image to a size that is not a scale")
        resized.append(inputs[2])
    return weights, resized


def _check_attribute(attribute: memoryview, operator: str) -> memoryview | None:
    """The tensor that an attribute holds. Raises OnnxFileError for a graph in it, and for large numbers."""
    tensor: memoryview | None = None
    name = ""
    numbers: list[int] = []
    for number, value in _fields(attribute):
        if number == _ATTRIBUTE_NAME:
            name = _text(value)
        elif number == _ATTRIBUTE_INT and isinstance(value, int):
            numbers.append(_signed(value))
        elif number == _ATTRIBUTE_INTS:
            numbers += _integers(value)
        elif number == _ATTRIBUTE_TENSOR:
            tensor = _message(value)
        elif number not in _ATTRIBUTE_PLAIN:
            raise OnnxFileError(f"holds a graph within its graph (in {operator})")
    most = MOST_NUMBER
    if operator in LARGER and name in ("strides", "blocksize"):
        most = MOST_STRIDE
    if operator != "Constant" and any(abs(each) > most for each in numbers):
        raise OnnxFileError(f"has a number over {most} in {operator} ({name[:40]})")
    return tensor


def _check_tensor(tensor: memoryview) -> tuple[str, int]:
    """A tensor's name, and how many numbers it holds. Raises OnnxFileError if it does not hold what it claims."""
    dims: list[int] = []
    kind, name, raw = 0, "", None
    typed = 0
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            dims += _integers(value)
        elif number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number == _TENSOR_NAME:
            name = _text(value)
        elif number == _TENSOR_RAW:
            raw = _message(value)
        elif number in _TENSOR_TYPED:
            width = _TENSOR_TYPED[number]
            typed += len(_integers(value)) if width == 0 else _packed_count(value, width)
        elif number in _TENSOR_OUTSIDE:
            raise OnnxFileError("holds weights that lie in other files")
    if kind not in _ITEM_BYTES or any(length < 0 for length in dims):
        raise OnnxFileError("holds a tensor of a type that is not read")
    count = math.prod(dims)
    held = typed if raw is None else len(raw) // _ITEM_BYTES[kind]
    if count != held:
        raise OnnxFileError(f"is damaged: tensor {name[:40]!r} holds {held:,} numbers of {min(count, 2**62):,}")
    return name, count


def _floats(tensor: memoryview) -> list[float]:
    """The numbers of a small float32 tensor."""
    kind, raw = 0, b""
    for number, value in _fields(tensor):
        if number == _TENSOR_TYPE and isinstance(value, int):
            kind = value
        elif number in (_TENSOR_RAW, 4) and not isinstance(value, int):
            raw += bytes(value)
    if kind != _FLOAT or len(raw) % 4 or len(raw) > 64:
        return [math.inf]
    return [each if math.isfinite(each) else math.inf for (each,) in struct.iter_unpack("<f", raw)]


def _note(message: memoryview) -> tuple[str, str]:
    texts = {1: "", 2: ""}
    for number, value in _fields(message):
        if number in texts:
            texts[number] = _text(value)
    return texts[1], texts[2]


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message. Raises OnnxFileError if it is cut or none."""
    position, end = 0, len(message)
    while position < end:
        key, position = _varint(message, position)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, position = _varint(message, position)
            yield number, value
            continue
        if wire == 2:
            length, position = _varint(message, position)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise OnnxFileError("is no ONNX file")
        if number == 0 or length > end - position:
            raise OnnxFileError("is cut, damaged, or no ONNX file")
        yield number, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
    raise OnnxFileError("is cut, damaged, or no ONNX file")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _integers(value: int | memoryview) -> list[int]:
    """A repeated whole number: one of them, or many packed."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers: list[int] = []
    position = 0
    while position < len(value):
        number, position = _varint(value, position)
        numbers.append(_signed(number))
    return numbers


def _packed_count(value: int | memoryview, width: int) -> int:
    return 1 if isinstance(value, int) else len(value) // width


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise OnnxFileError("is cut, damaged, or no ONNX file")
    return value


def _text(value: int | memoryview) -> str:
    message = _message(value)
    if len(message) > MOST_NOTE:
        raise OnnxFileError("holds a text that is too long")
    try:
        return bytes(message).decode()
    except UnicodeDecodeError as error:
        raise OnnxFileError("is cut, damaged, or no ONNX file") from error


def _written(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return _written_varint(number << 3 | 2) + _written_varint(len(content)) + content


def _written_note(name: str, text: str) -> bytes:
    return _written(1, name.encode()) + _written(2, text.encode())


def _written_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
