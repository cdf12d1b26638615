"""A DICOM series as one volume: order, values and affine, and what is no regular grid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from picture_kit import dicom_series
from pydicom.uid import generate_uid

from edgedeploy.runtime.dicom import DicomError, open_series


def changed(folder: Path, name: str, **values: Any) -> None:
    data = pydicom.dcmread(folder / name)
    for key, value in values.items():
        setattr(data, key, value)
    data.save_as(folder / name)


def of_no_number(path: Path) -> bytes:
    """The file with ``nan`` as distance between columns, which pydicom does not write."""
    data = pydicom.dcmread(path)
    data.PixelSpacing = [1, 7.5]
    data.save_as(path)
    raw = path.read_bytes()
    assert raw.count(b"\\7.5") == 1
    return raw.replace(b"\\7.5", b"\\nan")


def test_a_series_is_a_volume_with_its_place(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-900, 900, (5, 4, 3))
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.75, 0, 20], [0, 0, 2.5, -30], [0, 0, 0, 1]], float)
    dicom_series(tmp_path, values, affine)
    series = open_series(tmp_path)
    assert series.values.dtype == np.float32 and np.array_equal(series.values, values)
    assert np.allclose(series.affine, affine) and series.spacing_mm == (0.5, 0.75, 2.5)


def test_an_oblique_series_comes_back_to_its_place(tmp_path: Path) -> None:
    turn = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.0, -1.0, 3.0])
    dicom_series(tmp_path, np.zeros((4, 4, 3), int) + np.arange(3), affine)
    assert np.allclose(open_series(tmp_path).affine, affine)


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda f: (f / "3.dcm").unlink(), "1 slices are missing between 2.dcm and 4.dcm"),
    "two missing": (
        lambda f: [(f / f"{n}.dcm").unlink() for n in (2, 3)],
        "2 slices are missing between 1.dcm and 4.dcm",
    ),
    "unequal": (
        lambda f: changed(f, "4.dcm", ImagePositionPatient=[0, 0, 8.6]),
        "unequally spaced: 2.600 mm between 3.dcm",
    ),
    "double": (lambda f: changed(f, "3.dcm", ImagePositionPatient=[0, 0, 4]), "two slices lie at one place"),
    "mixed": (lambda f: changed(f, "2.dcm", SeriesInstanceUID=generate_uid()), "slices of 2 series"),
    "tilted": (
        lambda f: [changed(f, f"{n}.dcm", ImagePositionPatient=[0, n * 0.5, n * 2]) for n in range(8)],
        "tilted gantry",
    ),
    "turned": (lambda f: changed(f, "2.dcm", ImageOrientationPatient=[0, 1, 0, 1, 0, 0]), "another orientation"),
    "stretched": (lambda f: changed(f, "2.dcm", PixelSpacing=[1, 2]), "another pixel spacing"),
    "no place": (lambda f: changed(f, "2.dcm", ImagePositionPatient=None), "2.dcm: it lacks one of"),
    "spacing of nothing": (
        lambda f: [(f / f"{n}.dcm").write_bytes(of_no_number(f / f"{n}.dcm")) for n in range(8)],
        "spacing is none",
    ),
    "inverted": (lambda f: changed(f, "2.dcm", PhotometricInterpretation="MONOCHROME1"), "inverted"),
    "other size": (lambda f: changed(f, "2.dcm", Rows=2, Columns=8), "2.dcm has 8x2 pixels"),
    "alone": (lambda f: [(f / f"{n}.dcm").unlink() for n in range(1, 8)], "1 files; a series of 2"),
    "no DICOM": (lambda f: (f / "9.dcm").write_text("text"), "9.dcm: pydicom cannot read it"),
    "no rescale": (
        lambda f: changed(f, "2.dcm", RescaleSlope=None, RescaleIntercept=None),
        "2.dcm has no rescale, and others of the series have",
    ),
    "a slope of nothing": (lambda f: changed(f, "2.dcm", RescaleSlope=0), "2.dcm: its rescale slope is 0"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_no_regular_grid_is_refused(name: str, tmp_path: Path) -> None:
    dicom_series(tmp_path, np.zeros((4, 4, 8), int), np.diag([-1.0, -1.0, 2.0, 1.0]))
    spoil, found = FAULTS[name]
    spoil(tmp_path)
    with pytest.raises(DicomError, match=found) as caught:
        open_series(tmp_path)
    assert "Somebody" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    for place in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(DicomError, match="no folder of slices"):
            open_series(place)
