"""Stateless random numbers: functions of key and place alone, and as random as they should be."""

from __future__ import annotations

import numpy as np
import torch
from scipy import stats

from hemotorch.keyed_random import fold, keys, normal, uniform


def test_they_are_functions_of_key_and_place():
    made = keys(3, 1, 5, 6)
    assert made.shape == (5, 6) and made.dtype == torch.int32
    assert torch.equal(keys(3, 1, 9, 6)[:5], made)
    assert torch.equal(keys(3, 1, 5, 12)[:, :6], made)
    whole = uniform(made[2], (40,))
    assert torch.equal(uniform(made[2, 3:5], (40,)), whole[3:5])
    assert torch.equal(normal(made[2, 1:2], (3, 4))[0], normal(made[2], (3, 4))[1])


def test_no_two_keys_are_the_same():
    made = [keys(seed, epoch, 130, 8) for seed in (0, 1, 2**31 + 1, 2**40) for epoch in range(12)]
    flat = torch.stack(made).flatten()
    assert len(flat.unique()) > len(flat) - 3  # of 50,000 in 2**32, chance allows a pair


def test_the_hash_is_the_published_one():
    """lowbias32 of a few numbers, computed in Python's own integers."""

    def lowbias32(x: int) -> int:
        x ^= x >> 16
        x = x * 0x7FEB352D % 2**32
        x ^= x >> 15
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    key = torch.tensor([5, -7], dtype=torch.int32)
    for number in (0, 1, 123456789):
        inner = lowbias32((number + 0x9E3779B9) % 2**32)
        expected = [lowbias32((inner + value) % 2**32) for value in (5, 2**32 - 7)]
        assert [value % 2**32 for value in fold(key, number).tolist()] == expected


def test_uniform_is_even():
    values = uniform(keys(0, 0, 64, 8).flatten(), (1000,)).double()
    assert float(values.min()) >= 0 and float(values.max()) < 1
    counts = np.histogram(values.numpy(), bins=1000, range=(0, 1))[0]
    assert stats.chisquare(counts).pvalue > 1e-3
    for a, b in ((values[:-1], values[1:]), (values[:, :-1], values[:, 1:]), (values[:, :500], values[:, 500:])):
        assert abs(np.corrcoef(a.flatten().numpy(), b.flatten().numpy())[0, 1]) < 0.006


def test_normal_is_normal():
    values = normal(keys(1, 0, 1, 50)[0], (3, 31, 33)).double()
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    samples = values.flatten(1).numpy()
    between = np.corrcoef(samples)[np.triu_indices(50, 1)]
    assert np.abs(between).max() < 5 / np.sqrt(samples.shape[1])
    assert bool(values.isfinite().all())
