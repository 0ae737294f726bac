"""`kernels.sample` as one Triton kernel: HU and target in one launch, each output pixel computed once."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from hemotorch.hu import AIR_HU, GAIN_CENTRE_HU
from hemotorch.task import BLEEDING_BITS

BLOCK = 256  #: output pixels per program: two per thread, whose registers leave a GPU room for many threads that wait


def launch(samples: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """`kernels.sample.sample` on `Samples` that it has checked."""
    hu, target, rows, theta, size, field, gain, offset, windows, typed = samples
    count, slices = rows.shape
    low, width = (bound.contiguous() for bound in windows) if windows else (None, None)
    channels = slices * (1 if low is None else len(low))
    out = hu.new_empty((count, channels, *size), dtype=torch.float32)
    moved_target = hu.new_empty((count, 1, *size), dtype=torch.uint8)
    if not count:
        return out, moved_target
    with torch.cuda.device_of(hu):
        _sample[(count * triton.cdiv(size[0] * size[1], BLOCK),)](
            hu,
            target,
            rows.contiguous(),
            theta.contiguous(),
            field if field is None else field.contiguous(),
            gain if gain is None else gain.contiguous(),
            offset if offset is None else offset.contiguous(),
            low,
            width,
            out,
            moved_target,
            *hu.shape[1:],
            *size,
            0 if field is None else field.shape[-1],
            SLICES=slices,
            WINDOWS=channels // slices,
            AIR=AIR_HU,
            CENTRE=GAIN_CENTRE_HU,
            BLEEDING=BLEEDING_BITS,
            TYPED=typed,
            BLOCK=BLOCK,
        )
    return out, moved_target


@triton.jit
def _sample(
    hu,
    target,
    rows,
    theta,
    field,
    gain,
    offset,
    low,
    width,
    out,
    moved_target,
    in_rows,
    in_columns,
    out_rows,
    out_columns,
    nodes,
    SLICES: tl.constexpr,
    WINDOWS: tl.constexpr,
    AIR: tl.constexpr,
    CENTRE: tl.constexpr,
    BLEEDING: tl.constexpr,
    TYPED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program makes BLOCK pixels, row by row, of one sample, all channels. Within an image offsets are 32-bit; to an
    image they are 64-bit. Whatever is None is left out when the kernel is compiled."""
    pixels = out_rows * out_columns
    blocks = tl.cdiv(pixels, BLOCK)
    program = tl.program_id(0)
    sample = (program // blocks).to(tl.int64)
    pixel = (program % blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < pixels
    i = tl.minimum(pixel, pixels - 1) // out_columns
    j = tl.minimum(pixel, pixels - 1) % out_columns

    # float64: float32 would place pixels differently on each device, by enough to move a mask's edge
    u = (2 * j + 1 - out_columns).to(tl.float64)
    v = (2 * i + 1 - out_rows).to(tl.float64)
    x = _affine(theta + 6 * sample, u, v, out_columns, out_rows)
    y = _affine(theta + 6 * sample + 3, u, v, out_columns, out_rows)
    if field is not None:
        row, down = _node(i, out_rows, nodes)
        column, across = _node(j, out_columns, nodes)
        x += _displacement(field + sample * (2 * nodes * nodes), row, column, down, across, nodes)
        y += _displacement(field + sample * (2 * nodes * nodes) + nodes * nodes, row, column, down, across, nodes)
    x0, fx = _pixel(x, in_columns)
    y0, fy = _pixel(y, in_rows)
    left = (x0 >= 0) & (x0 < in_columns)
    right = (x0 >= -1) & (x0 < in_columns - 1)
    top = (y0 >= 0) & (y0 < in_rows)
    bottom = (y0 >= -1) & (y0 < in_rows - 1)
    at = y0 * in_columns + x0

    area = in_rows * in_columns
    for s in tl.static_range(SLICES):
        image = hu + tl.load(rows + sample * SLICES + s) * area
        a = tl.load(image + at, mask=left & top, other=AIR).to(tl.float32) - AIR
        b = tl.load(image + at + 1, mask=right & top, other=AIR).to(tl.float32) - AIR
        c = tl.load(image + at + in_columns, mask=left & bottom, other=AIR).to(tl.float32) - AIR
        d = tl.load(image + at + in_columns + 1, mask=right & bottom, other=AIR).to(tl.float32) - AIR
        value = _between(_between(a, b, fx), _between(c, d, fx), fy) + AIR
        if gain is not None:
            value = CENTRE + (value - CENTRE) * tl.load(gain + sample)
        if offset is not None:
            value += tl.load(offset + sample)
        for w in tl.static_range(WINDOWS):
            shown = value
            if low is not None:
                shown = (value - tl.load(low + w)) / tl.load(width + w)
                shown = tl.minimum(tl.maximum(shown, 0.0), 1.0)
            tl.store(out + (sample * (WINDOWS * SLICES) + w * SLICES + s) * pixels + pixel, shown, mask=inside)

    image = target + tl.load(rows + sample * SLICES + SLICES // 2) * area
    a = tl.load(image + at, mask=left & top, other=0)
    b = tl.load(image + at + 1, mask=right & top, other=0)
    c = tl.load(image + at + in_columns, mask=left & bottom, other=0)
    d = tl.load(image + at + in_columns + 1, mask=right & bottom, other=0)
    top_share = _between(_bleeding(a, BLEEDING), _bleeding(b, BLEEDING), fx)
    bottom_share = _between(_bleeding(c, BLEEDING), _bleeding(d, BLEEDING), fx)
    bleeds = (_between(top_share, bottom_share, fy) >= 0.5).to(tl.float32)
    value = bleeds.to(tl.uint8)
    if TYPED:
        value, largest = a * 0, fx * 0 - 1.0
        value, largest = _nearer(value, largest, a, (1.0 - fx) * (1.0 - fy), bleeds, BLEEDING)
        value, largest = _nearer(value, largest, b, fx * (1.0 - fy), bleeds, BLEEDING)
        value, largest = _nearer(value, largest, c, (1.0 - fx) * fy, bleeds, BLEEDING)
        value, largest = _nearer(value, largest, d, fx * fy, bleeds, BLEEDING)
    tl.store(moved_target + sample * pixels + pixel, value, mask=inside)


@triton.jit
def _bleeding(value, BLEEDING: tl.constexpr):
    """1 for a target that is bleeding of whatever type, else 0, float32."""
    return ((value & BLEEDING) != 0).to(tl.float32)


@triton.jit
def _nearer(value, largest, candidate, weight, bleeds, BLEEDING: tl.constexpr):
    """The candidate and its weight instead, if that is larger and it is bleeding or not, as asked."""
    nearer = (_bleeding(candidate, BLEEDING) == bleeds) & (weight > largest)
    return tl.where(nearer, candidate, value), tl.where(nearer, weight, largest)


@triton.jit
def _affine(row, u, v, columns, rows):
    """One row of theta applied to an output pixel, given as u / columns and v / rows."""
    by_u = tl.load(row).to(tl.float64) / columns
    by_v = tl.load(row + 1).to(tl.float64) / rows
    return by_u * u + by_v * v + tl.load(row + 2).to(tl.float64)


@triton.jit
def _pixel(x, extent):
    """The pixel before a normalised position, int32, and how far behind it the position is, 0 to 1, float32."""
    position = (x + 1.0) * extent * 0.5 - 0.5
    # Far outside is all one air, and so is a position that is no number: int32 holds -2
    position = tl.where((position > -1.0) & (position < extent), position, -2.0)
    before = tl.floor(position)
    return before.to(tl.int32), (position - before).to(tl.float32)


@triton.jit
def _node(pixel, count, nodes):
    """The node before an output pixel, and the weight of the next one, float64."""
    span = tl.maximum(count - 1, 1)
    scaled = pixel * (nodes - 1)
    node = scaled // span
    fraction = (scaled - node * span).to(tl.float64) * (tl.full([1], 1.0, tl.float64) / span)
    return node, fraction * fraction * (3.0 - 2.0 * fraction)


@triton.jit
def _displacement(field, row, column, down, across, nodes):
    """One component of the field, float64. row, column, down, across: what _node gave."""
    next_row = tl.minimum(row + 1, nodes - 1)
    next_column = tl.minimum(column + 1, nodes - 1)
    a = tl.load(field + row * nodes + column).to(tl.float64)
    b = tl.load(field + row * nodes + next_column).to(tl.float64)
    c = tl.load(field + next_row * nodes + column).to(tl.float64)
    d = tl.load(field + next_row * nodes + next_column).to(tl.float64)
    return _between(_between(a, b, across), _between(c, d, across), down)


@triton.jit
def _between(a, b, f):
    return a + f * (b - a)
