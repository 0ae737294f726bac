"""The optimisers by name, and the learning rate of each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hemotorch.nets import Net
from hemotorch.recipe import Optimizer


def make_optimizer(options: Optimizer, net: Net, lr: Tensor) -> torch.optim.Optimizer:
    """SGD, Adam or AdamW on all weights of a network.

    Args:
        lr: the learning rate, a scalar on the network's device, which may change from step to step.
    """
    parameters = list(net.parameters())
    decay = options.weight_decay
    # fused: one kernel for all parameters.
    if options.name == "sgd":
        sgd = torch.optim.SGD(parameters, lr, options.momentum, weight_decay=decay, fused=True)
        if options.momentum:
            # If scaled gradients overflow in the first step, it is left out; a buffer that torch makes in that step
            # would stay uninitialised memory.
            for parameter in parameters:
                sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    optimizer = torch.optim.Adam if options.name == "adam" else torch.optim.AdamW
    # capturable: on a GPU nothing of it, step count included, is on the host, as CUDA graphs need it.
    return optimizer(parameters, lr, weight_decay=decay, fused=True, capturable=lr.is_cuda)


def learning_rate(options: Optimizer, step: int, total: int) -> float:
    """The rate of a step: constant, or up to `lr` and down again along a cosine (one-cycle, Smith 2018).

    Args:
        step: counted over the whole training, from 0.
        total: steps of the whole training.
    """
    warm = options.warmup * total
    rise = min(1.0, (step + 1) / (warm + 1))
    if options.schedule == "constant" or step < warm:
        return options.lr * rise
    angle = math.pi * (step - warm) / max(1.0, total - warm)
    return options.lr * 0.5 * (1 + math.cos(angle))
