"""Working resolution, crop and pad, and the way back. The only resampler: training and prediction both use it.

A network sees slices of its own pixel size, cropped around the head: `placement`. Through the plane the output keeps
the scan's own slices, but what the network sees of each, and of its neighbours, is as thick and as far apart as the
slices it was trained on: `slabs`. All of it is numpy, so that no kind of model needs another kind's library.

placement  where a grid lies on a scan's slices; HU to the grid, and probabilities back
regular    any scan as a regular volume: one distance between slices, no tilt
slabs      distances between slices, and what a network sees in place of slices at another distance
targets    what is known of each pixel, on the grid
"""

from hemotorch.grid.placement import Axis, Grid, Placement, head_centre, hu_to_working, place, tile_corners
from hemotorch.grid.regular import regular
from hemotorch.grid.slabs import (
    SliceSpacing,
    average_slices,
    slice_positions_mm,
    stack_weights,
    stacks_to_working,
    taken_by_index,
    typical_distance_mm,
)
from hemotorch.grid.targets import SliceShares, TargetShares, target_to_working

__all__ = [
    "Axis",
    "Grid",
    "Placement",
    "SliceShares",
    "SliceSpacing",
    "TargetShares",
    "average_slices",
    "head_centre",
    "hu_to_working",
    "place",
    "regular",
    "slice_positions_mm",
    "stack_weights",
    "stacks_to_working",
    "taken_by_index",
    "target_to_working",
    "tile_corners",
    "typical_distance_mm",
]
