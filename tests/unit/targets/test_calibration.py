"""Calibration cases on their way from the task to a toolchain."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from edgedeploy.errors import BuildError, DataError, Unsupported
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.translate import translated
from edgedeploy.targets.common import CALIBRATION_LIMIT, calibration_feeds, first_feed, staged

SPECS = (TensorSpec("image", "float32", (1, 2)),)


def request(made: list[int], total: int | None = None) -> BuildRequest:
    def source() -> Iterator[dict[str, Array]]:
        for index in count() if total is None else range(total):
            made.append(index)
            yield {"image": np.full((1, 2), index, np.float32), "unused": np.zeros(1)}

    return BuildRequest(Path("reference.onnx"), SPECS, (), "int8", source)


def test_cases_are_made_when_asked_for() -> None:
    made: list[int] = []
    feeds = calibration_feeds(request(made))
    assert made == []
    first = next(feeds)
    assert made == [0]
    assert list(first) == ["image"]


def test_an_endless_source_ends() -> None:
    made: list[int] = []
    assert sum(1 for _ in calibration_feeds(request(made))) == CALIBRATION_LIMIT
    assert len(made) == CALIBRATION_LIMIT


def test_calibration_may_be_read_again() -> None:
    asked = request([], total=3)
    values = [[float(feed["image"][0, 0]) for feed in calibration_feeds(asked)] for _ in range(2)]
    assert values == [[0.0, 1.0, 2.0]] * 2
    assert float(first_feed(asked)["image"][0, 0]) == 0.0


def test_no_case_at_all_is_an_error_of_the_data() -> None:
    with pytest.raises(DataError, match="calibration"):
        first_feed(request([], total=0))


def test_a_failed_build_leaves_the_folder_empty(tmp_path: Path) -> None:
    def build() -> None:
        with staged(tmp_path) as scratch:
            (scratch / "half.bin").write_bytes(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        build()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), MemoryError()])
def test_trouble_of_this_host_is_no_property_of_the_variant(error: Exception) -> None:
    with pytest.raises(type(error)), translated("a build", "mend it"):
        raise error


def test_a_toolchains_complaint_is_told_without_its_preamble() -> None:
    text = (
        "Exception from src/core.cpp:84:\nCheck 'false' failed at report.cpp:151:\n\n-- No conversion rule for Honey\n"
    )
    with (
        pytest.raises(Unsupported, match=r"^a build: -- No conversion rule for Honey\. mend it$"),
        translated("a build", "mend it", Unsupported),
    ):
        raise RuntimeError(text)
    with pytest.raises(BuildError, match="ValueError"), translated("a build", "mend it"):
        raise ValueError
