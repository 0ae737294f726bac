"""An exported network as a torch network again, to train on from it."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

from hemotorch import nets
from hemotorch.errors import InputError
from hemotorch.inference.deployment import Deployment
from hemotorch.inference.onnx_model import ADVICE, checked_content

TRAINED_BUFFERS = ("running_mean", "running_var")  #: of batch norm. All other buffers follow from the options


def network_from_onnx(path: Path) -> tuple[nets.Net, Deployment]:
    """The network of an ONNX file that `hemotorch export` wrote, with its weights, in fp32 on the CPU.

    Args:
        path: of the file.

    Returns:
        The network in evaluation mode, and how it is used.

    Raises:
        InputError: if the file is damaged, not one of hemotorch, or from a version that joined weights when exporting.
    """
    note, content = checked_content(path)
    if note.options is None:
        raise InputError("was exported by a version that kept no weights to train on", path, ADVICE)
    graph = onnx.load_model_from_string(content).graph
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        # The exporter keeps equal tensors once, and gives the others by name.
        if node.op_type == "Identity" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
    net = nets.build(note.net, **note.options)
    weights = net.state_dict()
    trained = {name for name, _ in net.named_parameters()}
    for name, fresh in weights.items():
        if name not in trained and not name.endswith(TRAINED_BUFFERS):
            continue
        if name not in arrays or arrays[name].shape != tuple(fresh.shape):
            raise InputError(f"its graph lacks the weights '{name}' of its network", path, ADVICE)
        weights[name] = torch.from_numpy(arrays[name].copy())
    net.load_state_dict(weights)
    return net.float().eval(), note.deployment
