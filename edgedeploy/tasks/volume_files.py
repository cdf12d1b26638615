"""Volumes in files: NIfTI, and folders that hold a DICOM series; where their voxels lie, and answers written back there."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgedeploy.errors import DataError
from edgedeploy.runtime.dicom import DicomError, open_series

Volume = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Affine = npt.NDArray[np.float64]

SUFFIXES: Final = (".nii.gz", ".nii")
MAX_VOXELS: Final = 1 << 28


def volume_files(folder: Path) -> list[Path]:
    """NIfTI files, and folders, which hold a DICOM series each."""
    named = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in named if path.is_dir() or path.name.lower().endswith(SUFFIXES))


def stem_of(path: Path) -> str:
    """The name that an image and its labels share."""
    name = path.name.lower()
    return path.name[: name.rindex(".nii")] if name.endswith(SUFFIXES) else path.name


def read_volume(path: Path) -> tuple[Volume, Affine]:
    """Values (X, Y, Z) and affine (voxel to mm, RAS+) of a NIfTI file or a folder with a DICOM series. Raises
    ``DataError``."""
    if not path.is_dir():
        return read_nifti(path)
    try:
        series = open_series(path)
    except DicomError as exc:
        raise DataError(f"series {path}", str(exc), "One folder holds the slices of one series") from None
    return series.values, series.affine


def read_nifti(path: Path) -> tuple[Volume, Affine]:
    """Values (X, Y, Z) and affine. Raises ``DataError`` for what is no NIfTI file, no single volume, or far too large."""
    import nibabel

    asked = f"volume {path}"
    try:
        file = nibabel.load(path)
        shape = tuple(int(side) for side in file.shape)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if not isinstance(file, nibabel.Nifti1Image) or len(shape) != 3 or not 0 < math.prod(shape) <= MAX_VOXELS:
            found = f"it is {type(file).__name__} of {file.shape} voxels"
            raise DataError(asked, found, f"One volume of at most {MAX_VOXELS} voxels in a NIfTI file")
        if file.get_data_dtype().kind not in "iuf":
            found = f"its voxels are {file.get_data_dtype()}"
            raise DataError(
                asked, found, "One real number a voxel: write magnitude, or one channel, to a file of its own"
            )
        values = np.asarray(file.dataobj, np.float32).reshape(shape)
        affine = np.asarray(file.affine, np.float64)
    except DataError:
        raise
    except Exception as exc:  # a damaged file fails in many ways inside nibabel
        raise DataError(asked, f"it cannot be read ({type(exc).__name__})", "Replace or remove the file") from None
    if not np.isfinite(values).all() or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(asked, "it holds NaN or Inf, or its affine is none", "Replace or remove the file")
    return values, affine


def write_labels(path: Path, labels: npt.NDArray[np.int32], affine: Affine) -> None:
    """A label map (X, Y, Z) as a NIfTI file with this affine, in one byte a voxel where that is enough. Raises ``DataError``
    where it cannot be written."""
    import nibabel
    from nibabel.filebasedimages import ImageFileError

    small = labels.min() >= 0 and labels.max() <= 255
    image: Any = nibabel.Nifti1Image(labels.astype(np.uint8) if small else labels, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    try:
        nibabel.save(image, path)
    except (OSError, ImageFileError) as exc:
        raise DataError(
            f"write {path}", str(exc), "Name a .nii or .nii.gz file in a folder that can be written"
        ) from None


def onto(values: npt.NDArray[Any], grid: Affine, shape: Iterable[int], affine: Affine) -> npt.NDArray[Any]:
    """``values``, whose voxels lie by ``grid``, at the voxels of an array of ``shape`` that lie by ``affine``: the nearest
    one, 0 outside. One plane at a time is in memory."""
    sides = tuple(shape)
    there = np.linalg.inv(grid) @ affine
    plane = np.stack(np.meshgrid(*(np.arange(side) for side in sides[1:]), indexing="ij"), axis=-1).reshape(-1, 2)
    result = np.zeros(sides, values.dtype)
    for place in range(sides[0]):
        where = plane @ there[:3, 1:3].T + (there[:3, 0] * place + there[:3, 3])
        near = np.rint(where).astype(np.int64)
        inside = ((near >= 0) & (near < values.shape)).all(axis=1)
        found = np.zeros(len(near), values.dtype)
        found[inside] = values[tuple(near[inside].T)]
        result[place] = found.reshape(sides[1:])
    return result


def same_voxels(grid: Affine, shape: Iterable[int], affine: Affine, other: Iterable[int]) -> bool:
    """Whether two arrays have the same voxels, perhaps along other axes or backwards: converters of DICOM turn them."""
    there = (np.linalg.inv(grid) @ affine)[:3]
    turned = there[:, :3]
    sides, ours = np.array(tuple(shape)), np.array(tuple(other))
    far = there @ [*(ours - 1), 1]
    corners = np.sort(np.stack([there[:, 3], far]), axis=0)
    whole = np.abs(turned - np.rint(turned)).max() < 1e-3
    return bool(whole and np.abs(corners - np.stack([np.zeros(3), sides - 1])).max() < 1e-2)
