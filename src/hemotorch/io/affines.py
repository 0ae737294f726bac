"""The two affines of a NIfTI header: what is wrong with one, and in what they disagree."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np

_QUATERNION = ("quatern_b", "quatern_c", "quatern_d")
_OFFSET = ("qoffset_x", "qoffset_y", "qoffset_z")
# How much two affines may differ before that is worth a warning: rounding stays below.
_SAME_SIZE = 0.01  # share of a voxel's edge
_SAME_DIRECTION_DEG = 1.0
_SAME_POSITION_MM = 1.0  # or one voxel, if that is longer


def qform_affine(header: Any) -> np.ndarray:
    """The affine of a NIfTI header's quaternion.

    nibabel refuses a quaternion that is a few roundings longer than 1, and a qfac other than 1 and -1. Other writers
    leave both, and the standard reads a qfac of 0 as 1.

    Args:
        header: of nibabel, unchecked.

    Returns:
        (4, 4) from the file's voxels to RAS mm; NaN if the quaternion is no rotation.
    """
    b, c, d = (float(header[name]) for name in _QUATERNION)
    squared = b * b + c * c + d * d
    if not squared < 1.001:
        return np.full((4, 4), np.nan)
    a = np.sqrt(max(0.0, 1.0 - squared))
    quaternion = np.array([a, b, c, d])
    if squared > 1:
        quaternion = quaternion / np.sqrt(squared)
    steps = np.array(header["pixdim"][1:4], dtype=float)
    qfac = float(header["pixdim"][0])
    if qfac < 0:
        steps[2] = -steps[2]
    affine = np.eye(4)
    affine[:3, :3] = nib.quaternions.quat2mat(quaternion) * steps
    affine[:3, 3] = [float(header[name]) for name in _OFFSET]
    return affine


def exact_quaternion(header: Any) -> None:
    """Makes a header's qform one that other programs can read: exact, or not declared if it is of no use."""
    if not header["qform_code"] or fault(qform_affine(header)):
        header["qform_code"] = 0
        for name in _QUATERNION:
            header[name] = 0
        return
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    length = float(np.linalg.norm([float(header[name]) for name in _QUATERNION]))
    if length > 1:
        for name in _QUATERNION:
            header[name] = float(header[name]) / length


def fault(affine: np.ndarray) -> str:
    """What is wrong with a (4, 4) affine, or "" if nothing is."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (steps > 0).all():
        return "has a step of zero or not a number"
    volume_of_unit_axes = abs(np.linalg.det(affine[:3, :3] / steps))
    if volume_of_unit_axes < 1e-3:
        return "is singular: two axes point the same way"
    return ""


def disagreement(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, int, int]) -> list[str]:
    """A warning that says in what the two usable affines of a header differ.

    Args:
        sform: (4, 4) that is taken.
        qform: (4, 4), the other one.
        shape: of the volume; positions are compared in its middle.

    Returns:
        One warning, or none if they agree.
    """
    differences = []
    sform_mm = np.linalg.norm(sform[:3, :3], axis=0)
    qform_mm = np.linalg.norm(qform[:3, :3], axis=0)
    if (np.abs(qform_mm - sform_mm) > _SAME_SIZE * sform_mm).any():
        differences.append(f"the voxel's size ({_size(sform_mm)} and {_size(qform_mm)} mm)")
    cosines = ((sform[:3, :3] / sform_mm) * (qform[:3, :3] / qform_mm)).sum(axis=0)
    angle_deg = float(np.rad2deg(np.arccos(np.clip(cosines.min(), -1, 1))))
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        differences.append("handedness (one is the mirror image of the other: left and right may be exchanged)")
    elif angle_deg > _SAME_DIRECTION_DEG:
        differences.append(f"direction (by {angle_deg:.0f} degrees)")
    middle = np.array([*(np.array(shape) - 1) / 2, 1.0])
    shift_mm = float(np.linalg.norm((sform @ middle - qform @ middle)[:3]))
    if shift_mm > max(_SAME_POSITION_MM, sform_mm.max()):
        differences.append(f"position (by {shift_mm:.0f} mm)")
    if not differences:
        return []
    return [f"sform and qform disagree on {' and on '.join(differences)}: sform is taken"]


def _size(edges_mm: np.ndarray) -> str:
    return " x ".join(f"{edge:.3g}" for edge in edges_mm)
