"""Random numbers on any device as functions of a key and an index: no generator, no history, nothing to wait for.

A key is an int32 per sample. Numbers come from a 32-bit integer hash in plain tensor operations, so that a batch's
numbers are made on its device in a handful of kernels, can be compiled and captured, and do not depend on what was made
before, on the number of processes or on which other samples are in the batch. Each use of a key is folded with a number
of its own, or two uses would get the same numbers.

What is decided on the host, such as which slices make a batch, comes from NumPy's generators, made anew from a key too.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

#: Multipliers of a 32-bit integer hash with low bias, found by C. Wellons's hash-prospector ("lowbias32"), as signed.
FIRST_MULTIPLIER, SECOND_MULTIPLIER = 0x7FEB352D, 0x846CA68B - 2**32
GOLDEN = 0x9E3779B9 - 2**32  #: 2**32 over the golden ratio, as signed; spreads numbers that are close
RANDOM_BITS = 24  #: of a float32, which has no more
NOISE, BENDING, DROPOUT, SHADING = 1, 2, 3, 4  #: what a sample's key is folded with, for each use of it


def keys(seed: int, epoch: int, steps: int, batch: int, device: torch.device | str = "cpu") -> Tensor:
    """(steps, batch) int32: the key of each sample of each batch of an epoch."""
    # Filled on the device: a copy from the host would wait for it.
    start = torch.full((1,), seed % 2**31, dtype=torch.int32, device=device)
    of_seed = fold(start, seed // 2**31 % 2**31)
    of_epoch = fold(of_seed, epoch)
    of_step = fold(of_epoch, torch.arange(steps, dtype=torch.int32, device=device))
    return fold(of_step[:, None], torch.arange(batch, dtype=torch.int32, device=device))


def fold(key: Tensor, number: Tensor | int) -> Tensor:
    """A new key, int32, from a key and a number; both broadcast."""
    if isinstance(number, int):
        number = torch.full((), number, dtype=torch.int32, device=key.device)
    return _mix(_mix(number + GOLDEN) + key)


def uniform(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Even in [0, 1), in steps of 2**-24.

    Args:
        key: (N,) int32.
        shape: of the numbers of each sample.

    Returns:
        (N, *shape) float32.
    """
    bits = _bits(key, math.prod(shape))
    numbers = bits.float().mul_(2.0**-RANDOM_BITS)
    return numbers.view(len(key), *shape)


def normal(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Of mean 0 and standard deviation 1 (Box and Muller, Ann Math Stat 1958, 29:610).

    Args:
        key: (N,) int32.
        shape: of the numbers of each sample.

    Returns:
        (N, *shape) float32.
    """
    count = math.prod(shape)
    pairs = -(-count // 2)
    even = uniform(key, (2 * pairs,))
    # The logarithm of 1 - u, which is never 0.
    radius = (1 - even[:, :pairs]).log_().mul_(-2).sqrt_()
    angle = even[:, pairs:] * (2 * math.pi)
    numbers = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return numbers[:, :count].view(len(key), *shape)


def rng(*key: int) -> np.random.Generator:
    """A generator on the host that is a function of its key."""
    return np.random.Generator(np.random.Philox(_sequence(*key)))


def torch_seed(*key: int) -> int:
    """A 63-bit seed for torch that is a function of its key."""
    state = _sequence(*key).generate_state(1, np.uint64)[0]
    return int(state >> np.uint64(1))


def _sequence(*key: int) -> np.random.SeedSequence:
    # The length is part of it: SeedSequence drops trailing zeros.
    return np.random.SeedSequence((*key, len(key) + 1))


def _bits(key: Tensor, count: int) -> Tensor:
    """(N, count) int32 of 24 random bits."""
    # Indices are hashed first: keys that are close, or a multiple apart, then have nothing in common.
    indices = torch.arange(count, dtype=torch.int32, device=key.device)
    hashed = _mix(indices + GOLDEN)
    return _shifted(_mix(hashed + key[:, None]), 32 - RANDOM_BITS)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shifted(x, 16)) * FIRST_MULTIPLIER
    x = (x ^ _shifted(x, 15)) * SECOND_MULTIPLIER
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, by: int) -> Tensor:
    """To the right, zeros moving in: torch's own shift of a signed number repeats its sign."""
    return (x >> by) & (2 ** (32 - by) - 1)
