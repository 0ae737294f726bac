"""The two affines of a NIfTI header: what is wrong with one, and in what they disagree."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np


def qform_affine(header: Any) -> np.ndarray:
    """(4, 4) affine of a NIfTI header's quaternion, NaN if that is no rotation.

    nibabel refuses a quaternion that is a few roundings longer than 1, and a qfac other than 1 and -1. Other writers
    leave both, and the standard reads a qfac of 0 as 1.
    """
    b, c, d = (float(header[f"quatern_{name}"]) for name in "bcd")
    squared = b * b + c * c + d * d
    affine = np.eye(4)
    if not squared < 1.001:
        return np.full((4, 4), np.nan)
    if squared > 1:
        b, c, d = (value / np.sqrt(squared) for value in (b, c, d))
    a = np.sqrt(max(0.0, 1.0 - squared))
    steps = np.array(header["pixdim"][1:4], dtype=float)
    if header["pixdim"][0] < 0:
        steps[2] = -steps[2]
    affine[:3, :3] = nib.quaternions.quat2mat([a, b, c, d]) * steps
    affine[:3, 3] = [float(header[f"qoffset_{name}"]) for name in "xyz"]
    return affine


def exact_quaternion(header: Any) -> None:
    """Makes a header's qform one that other programs can read: exact, or not declared if it is of no use."""
    names = [f"quatern_{name}" for name in "bcd"]
    if not header["qform_code"] or fault(qform_affine(header)):
        header["qform_code"] = 0
        for name in names:
            header[name] = 0
        return
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1
    length = float(np.linalg.norm([float(header[name]) for name in names]))
    if length > 1:
        for name in names:
            header[name] = float(header[name]) / length


def fault(affine: np.ndarray) -> str:
    """What is wrong with an affine, or nothing."""
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (steps > 0).all():
        return "has a step of zero or not a number"
    if abs(np.linalg.det(affine[:3, :3] / steps)) < 1e-3:
        return "is singular: two axes point the same way"
    return ""


def disagreement(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, int, int]) -> list[str]:
    """A warning that says in what the two usable affines of a header differ, or none."""
    ours, other = (np.linalg.norm(affine[:3, :3], axis=0) for affine in (sform, qform))
    cosines = ((sform[:3, :3] / ours) * (qform[:3, :3] / other)).sum(axis=0)
    middle = np.array([*(np.array(shape) - 1) / 2, 1.0])
    about = []
    if (np.abs(other - ours) > 0.01 * ours).any():
        sizes = (" x ".join(f"{mm:.3g}" for mm in each) for each in (ours, other))
        about.append("the voxel's size ({} and {} mm)".format(*sizes))
    if np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0:
        about.append("handedness (one is the mirror image of the other: left and right may be exchanged)")
    elif cosines.min() < np.cos(np.deg2rad(1)):
        about.append(f"direction (by {np.rad2deg(np.arccos(np.clip(cosines.min(), -1, 1))):.0f} degrees)")
    shift = float(np.linalg.norm((sform @ middle - qform @ middle)[:3]))
    if shift > max(1.0, ours.max()):
        about.append(f"place (by {shift:.0f} mm)")
    return [f"sform and qform disagree on {' and on '.join(about)}: sform is taken"] if about else []
