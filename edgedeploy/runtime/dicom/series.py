"""A DICOM series as one volume: slices in their order, modality values, and where the voxels lie.

Geometry by PS3.3 C.7.6.2.1.1: position and orientation of the patient, row and column spacing. What is no regular grid is
refused, because a network that was trained on one would answer all the same: missing slices, unequal spacing, a tilted
gantry, slices of more than one series. No message says what a file says of a patient.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

from edgedeploy.runtime.dicom.clip import Clip, DicomError, open_clip, unquoted
from edgedeploy.runtime.pipeline.numpy_later import np

MOST_SLICES = 8192
MOST_VOXELS = 1 << 28
SPACING_APART = 0.01
"""Share of the spacing that two gaps may differ by: positions are decimal texts, mostly of micrometres."""

DIRECTION_APART = 1e-3
"""That two directions may differ by, as cosines."""


class Series(NamedTuple):
    """``values``: float32 (X, Y, Z) after the modality's rescale (HU of a CT), X along an image's rows and Z along the
    slices; ``affine``: float64 (4, 4), from voxel to mm in RAS+, as in NIfTI files; ``spacing_mm`` along the three axes."""

    values: Any
    affine: Any
    spacing_mm: tuple[float, float, float]


class _Slice(NamedTuple):
    path: Path
    series: str
    shape: tuple[int, int]
    position: Any
    along: Any
    down: Any
    spacing: tuple[float, float]
    rescaled: bool


def open_series(folder: str | os.PathLike[str]) -> Series:
    """The one series whose slices are the files of ``folder``; hidden files are passed by. Raises :class:`DicomError` for
    files that are no slices of one regular grid."""
    try:
        paths = sorted(path for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as exc:
        raise DicomError(f"no folder of slices: {exc.strerror or exc}") from None
    if not 2 <= len(paths) <= MOST_SLICES:
        raise DicomError(f"{len(paths)} files; a series of 2 to {MOST_SLICES} is read")
    with unquoted():
        found = [_slice(path) for path in paths]
        _check_one_grid(found)
        normal = np.cross(found[0].along, found[0].down)
        found.sort(key=lambda each: float(each.position @ normal))
        gap_mm = _gap_mm(found, normal)
        rows, columns = found[0].shape
        if rows * columns * len(found) > MOST_VOXELS:
            raise DicomError(f"{columns}x{rows}x{len(found)} voxels; at most {MOST_VOXELS} are read")
        values = np.empty((columns, rows, len(found)), np.float32)
        for place, each in enumerate(found):
            values[:, :, place] = _modality(_opened(each.path)).T
    if not np.isfinite(values).all():
        raise DicomError("its rescale gives NaN or Inf")
    down_mm, along_mm = found[0].spacing
    steps = (found[0].along * along_mm, found[0].down * down_mm, normal * gap_mm)
    affine = np.eye(4)
    affine[:3] = np.stack([*steps, found[0].position], axis=1)
    affine[:2] *= -1  # DICOM's left and posterior to NIfTI's right and anterior
    return Series(values, affine, (along_mm, down_mm, gap_mm))


def _slice(path: Path) -> _Slice:
    """One slice's geometry; its pixels are read later, so that one slice at a time is in memory."""
    clip = _opened(path)
    data = clip.source
    if len(clip) != 1 or clip.colour:
        raise DicomError(
            f"{path.name}: one grey frame a file is read, and this has {len(clip)} frames of {_kind(clip)}"
        )
    try:
        position = np.array([float(value) for value in data.ImagePositionPatient], np.float64)
        cosines = np.array([float(value) for value in data.ImageOrientationPatient], np.float64)
        spacing = tuple(float(value) for value in data.PixelSpacing)
        series = str(data.SeriesInstanceUID)
    except Exception:  # absent, or no numbers
        wanted = "SeriesInstanceUID, ImagePositionPatient, ImageOrientationPatient and PixelSpacing"
        raise DicomError(f"{path.name}: it lacks one of {wanted}: it is no slice of a volume") from None
    along, down = cosines[:3], cosines[3:]
    lengths = (float(np.linalg.norm(along)), float(np.linalg.norm(down)))
    sound = len(position) == 3 and len(cosines) == 6 and len(spacing) == 2
    sound = sound and bool(np.isfinite([*position, *cosines, *spacing]).all())
    if not sound or min(spacing) <= 0 or max(abs(length - 1) for length in lengths) > DIRECTION_APART:
        raise DicomError(f"{path.name}: its position, orientation or spacing is none")
    if abs(float(along @ down)) > DIRECTION_APART:
        raise DicomError(f"{path.name}: its rows and columns are not at right angles")
    rescaled = _rescaled(path, data)
    return _Slice(path, series, (clip.rows, clip.columns), position, along, down, (spacing[0], spacing[1]), rescaled)


def _opened(path: Path) -> Clip:
    """A folder has hundreds of files: which one cannot be read is said."""
    try:
        return open_clip(path)
    except DicomError as exc:
        raise DicomError(f"{path.name}: {exc}") from None


def _rescaled(path: Path, data: Any) -> bool:
    """Whether a slice says what its numbers mean. A slope of 0 would make them all one."""
    try:
        slope = data.get("RescaleSlope")
        none = slope is not None and float(slope) == 0
    except Exception as exc:  # a damaged number fails in several ways inside pydicom
        raise DicomError(f"{path.name}: its rescale is damaged ({type(exc).__name__})") from None
    if none:
        raise DicomError(f"{path.name}: its rescale slope is 0: all its values would be one")
    return slope is not None or "ModalityLUTSequence" in data


def _kind(clip: Clip) -> str:
    return "colours" if clip.colour else "grey"


def _check_one_grid(found: list[_Slice]) -> None:
    first = found[0]
    count = len({each.series for each in found})
    if count > 1:
        raise DicomError(f"the folder holds slices of {count} series: put each into a folder of its own")
    for each in found[1:]:
        if each.shape != first.shape:
            rows, columns = each.shape
            raise DicomError(
                f"{each.path.name} has {columns}x{rows} pixels, {first.path.name} {first.shape[1]}x{first.shape[0]}"
            )
        if each.rescaled != first.rescaled:
            without = (first if each.rescaled else each).path.name
            raise DicomError(f"{without} has no rescale, and others of the series have: its values are none of theirs")
        turned = max(np.abs(each.along - first.along).max(), np.abs(each.down - first.down).max())
        stretched = max(abs(mine / theirs - 1) for mine, theirs in zip(each.spacing, first.spacing))
        if turned > DIRECTION_APART or stretched > SPACING_APART:
            what = "orientation" if turned > DIRECTION_APART else "pixel spacing"
            raise DicomError(f"{each.path.name} has another {what} than {first.path.name}")


def _gap_mm(found: list[_Slice], normal: Any) -> float:
    """The distance between neighbours. Raises :class:`DicomError` where there is no single one."""
    positions = np.stack([each.position for each in found])
    gaps = np.diff(positions @ normal)
    usual = float(np.median(gaps))
    if gaps.min() <= 0 or gaps.min() < SPACING_APART * usual:
        twice = found[int(gaps.argmin()) + 1].path.name
        raise DicomError(
            f"two slices lie at one place, the second is {twice}: remove the copies, or other echoes and phases"
        )
    aside = np.diff(positions, axis=0) - gaps[:, None] * normal
    if np.abs(aside).max() > SPACING_APART * usual:
        raise DicomError("its slices are shifted sideways (a tilted gantry): bring it to a regular grid first")
    for place in np.flatnonzero(np.abs(gaps - usual) > SPACING_APART * usual):
        between = f"between {found[place].path.name} and {found[place + 1].path.name}"
        times = gaps[place] / usual
        if round(float(times)) >= 2 and abs(times - round(float(times))) <= SPACING_APART * times:
            raise DicomError(f"{round(float(times)) - 1} slices are missing {between}")
        raise DicomError(f"slices are unequally spaced: {gaps[place]:.3f} mm {between}, {usual:.3f} mm mostly")
    return usual


def _modality(clip: Clip) -> Any:
    """Rows and columns of values after the modality's rescale."""
    if str(clip.source.get("PhotometricInterpretation", "")) != "MONOCHROME2":
        raise DicomError(
            "its slices are inverted (MONOCHROME1), which a volume's values are not: store it as MONOCHROME2"
        )
    values = clip[0]
    try:
        from pydicom.pixels import apply_modality_lut

        return np.asarray(apply_modality_lut(values, clip.source), np.float32)
    except DicomError:
        raise
    except Exception as exc:  # a damaged rescale fails in many ways inside pydicom
        raise DicomError(f"its rescale is damaged ({type(exc).__name__})") from None
