"""Outlines as paths of SVG, for pages on which pictures are enlarged: they run along the edges of the mask's pixels."""

from __future__ import annotations

import numpy as np


def outline_path(area: np.ndarray) -> str:
    """The border of an area as the `d` of an SVG path.

    Args:
        area: (rows, columns) bool.

    Returns:
        Horizontal and vertical lines, in pixels from the upper left corner; "" if the area is empty.
    """
    padded = np.pad(area, 1)
    across = _runs(padded[1:, 1:-1] != padded[:-1, 1:-1])
    down = _runs((padded[1:-1, 1:] != padded[1:-1, :-1]).T)
    lines = [f"M{start} {line}h{length}" for line, start, length in across]
    lines += [f"M{line} {start}v{length}" for line, start, length in down]
    return "".join(lines)


def _runs(edges: np.ndarray) -> list[list[int]]:
    """Row, first column and length of each run of True along the rows of a (rows, columns) bool array."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    runs: list[list[int]] = np.stack([rows, starts, ends - starts], axis=1).tolist()
    return runs
