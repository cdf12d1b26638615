"""Arrays of many cases, one case in memory at a time."""

from __future__ import annotations

import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgedeploy.files import mapped_arrays, read_arrays, write_stacked
from edgedeploy.interfaces.task import Array
from edgedeploy.runtime.agent.worker import OutputFile

ROW_BYTES = 1 << 20


def rows(count: int) -> Iterator[dict[str, Array]]:
    for index in range(count):
        yield {"image": np.full((1, 512, 512), index, np.float32), "seen": np.array(index % 2 == 0)}


def test_rows_are_stacked_and_never_all_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cases.npz"
    write_stacked(tmp_path / "first.npz", rows(1))  # what is imported and cached by the first one is no case
    tracemalloc.start()
    try:
        assert write_stacked(path, rows(40)) == 40
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 8 * ROW_BYTES
    found = read_arrays(path)
    assert found["image"].shape == (40, 1, 512, 512) and found["image"].dtype == np.float32
    assert found["image"][:, 0, 0, 0].tolist() == list(range(40)) and found["seen"].tolist() == [True, False] * 20
    assert [item.name for item in path.parent.iterdir()] == ["cases.npz"]


@pytest.mark.parametrize("odd", ["nothing", "shape", "name"])
def test_what_does_not_stack_leaves_no_file(odd: str, tmp_path: Path) -> None:
    others = {"shape": {"x": np.zeros(3)}, "name": {"y": np.zeros(2)}}
    given = [] if odd == "nothing" else [{"x": np.zeros(2)}, others[odd]]
    with pytest.raises(ValueError, match="no case to stack" if odd == "nothing" else "case 1 has other arrays"):
        write_stacked(tmp_path / "cases.npz", given)
    assert not list(tmp_path.iterdir())


def test_what_a_board_sends_is_mapped_and_equal(tmp_path: Path) -> None:
    with OutputFile(tmp_path, 3) as file:
        for index in range(3):
            file.append({"out0": np.full((2, 5), index, np.float32), "out1": np.array([index], np.int64)})
    path = tmp_path / "outputs.npz"
    mapped, read = mapped_arrays(path), read_arrays(path)
    assert {*mapped} == {*read} == {"out0", "out1"}
    assert all(isinstance(value.base, np.memmap) for value in mapped.values())
    assert all((mapped[name] == read[name]).all() and mapped[name].dtype == read[name].dtype for name in read)
    mapped["out0"][:] = -1.0  # as a task's own code may
    assert (read_arrays(path)["out0"] == read["out0"]).all()


def test_packed_and_turned_arrays_are_read_as_ever(tmp_path: Path) -> None:
    turned = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.savez(tmp_path / "turned.npz", x=turned)
    np.savez_compressed(tmp_path / "packed.npz", x=turned)
    for name in ("turned.npz", "packed.npz"):
        assert (mapped_arrays(tmp_path / name)["x"] == turned).all()


def test_a_file_that_is_none_is_refused_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "outputs.npz"
    path.write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(ValueError, match=r"no whole \.npz"):
        mapped_arrays(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00")
    with pytest.raises(ValueError):
        mapped_arrays(path)
