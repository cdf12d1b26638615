"""Checkpoints as Flower and NVFLARE leave them: by name, or in order; what does not fit is named."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import DataError
from edgedeploy.federated.checkpoints import plain_weights
from edgedeploy.federated.flower import keep, keeping


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))


@pytest.fixture
def like(tmp_path: Path) -> Path:
    torch.save(network(1).state_dict(), tmp_path / "initial.pt")
    return tmp_path / "initial.pt"


def arrays(model: nn.Module) -> list[np.ndarray]:
    return [value.numpy() for value in model.state_dict().values()]


def equal(data: bytes | None, model: nn.Module) -> bool:
    assert data is not None
    found, own = load(data), model.state_dict()
    return sorted(found) == sorted(own) and all(torch.equal(found[name], own[name]) for name in own)


def test_a_list_of_flowers_goes_by_order_and_a_table_by_name(tmp_path: Path, like: Path) -> None:
    model = network()
    np.savez(tmp_path / "round-3-weights.npz", *arrays(model))
    assert equal(plain_weights(tmp_path / "round-3-weights.npz", like), model)
    np.savez(tmp_path / "named.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    assert equal(plain_weights(tmp_path / "named.npz"), model)
    assert equal(plain_weights(tmp_path / "named.npz", like), model)
    with pytest.raises(DataError, match="9 arrays have no names"):
        plain_weights(tmp_path / "round-3-weights.npz")


def test_nvflares_file_goes_by_name_as_tensors_and_as_arrays(tmp_path: Path, like: Path) -> None:
    model = network()
    torch.save(
        {"model": model.state_dict(), "train_conf": {"train": {"model": "net"}}}, tmp_path / "FL_global_model.pt"
    )
    assert equal(plain_weights(tmp_path / "FL_global_model.pt"), model)
    by_array = {name: value.numpy() for name, value in model.state_dict().items()}
    torch.save({"model": by_array, "train_conf": None}, tmp_path / "arrays.pt")
    assert equal(plain_weights(tmp_path / "arrays.pt", like), model)


def test_files_that_sites_read_are_left_as_they_are(tmp_path: Path, like: Path) -> None:
    assert plain_weights(like) is None


def test_what_no_site_could_read_is_refused_before_a_site_is_asked(tmp_path: Path, like: Path) -> None:
    for content in (b"", b"what is this", like.read_bytes()[:-400]):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(DataError, match=r"checkpoint other\.pt"):
            plain_weights(tmp_path / "other.pt")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    with pytest.raises(DataError, match="holds no tensors"):
        plain_weights(tmp_path / "other.pt")


def test_the_first_misfit_is_named(tmp_path: Path, like: Path) -> None:
    own = arrays(network())
    np.savez(tmp_path / "w.npz", *[*own[:7], own[7][:1], own[8]])
    with pytest.raises(DataError, match=r"2\.weight \(array 7\) is \[1, 2, 1, 1\] in the file and \[3, 2, 1, 1\]"):
        plain_weights(tmp_path / "w.npz", like)
    np.savez(tmp_path / "w.npz", *own[:5])
    with pytest.raises(DataError, match=r"5 arrays, and 1\.running_var"):
        plain_weights(tmp_path / "w.npz", like)
    np.savez(tmp_path / "w.npz", *own, own[0])
    with pytest.raises(DataError, match="10 arrays, and the network 9 tensors"):
        plain_weights(tmp_path / "w.npz", like)
    own[0] = own[0] * np.nan
    np.savez(tmp_path / "w.npz", *own)
    with pytest.raises(DataError, match=r"0\.weight holds NaN"):
        plain_weights(tmp_path / "w.npz", like)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def test_nothing_in_a_strangers_file_is_run(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(DataError, match="Python objects"):
        plain_weights(tmp_path / "evil.npz")
    (tmp_path / "evil.pt").write_bytes(pickle.dumps({"model": Evil(), "train_conf": {}}))
    with pytest.raises(DataError, match=r"holds a Python object|neither a file of torch.save"):
        plain_weights(tmp_path / "evil.pt")
    (tmp_path / "half.npz").write_bytes(b"PK\x03\x04 and nothing")
    with pytest.raises(DataError, match="damaged"):
        plain_weights(tmp_path / "half.npz")
    np.save(buffer := io.BytesIO(), np.array([Evil()], dtype=object))
    (tmp_path / "evil.npy").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="Python objects"):
        plain_weights(tmp_path / "evil.npy")


def test_a_running_flower_app_keeps_each_round(tmp_path: Path) -> None:
    flwr = pytest.importorskip("flwr.app")
    trained, fresh = network(3), network(4)
    path = keep(flwr.ArrayRecord(trained.state_dict()), tmp_path / "global.safetensors", network(5))
    WeightsFile(path).load_into(fresh)
    assert equal(path.read_bytes(), trained) and all(map(np.array_equal, arrays(trained), arrays(fresh)))
    keeping(path, network(5))(2, flwr.ArrayRecord(arrays(fresh)))
    assert equal(path.read_bytes(), fresh)
    before = path.read_bytes()
    with pytest.raises(DataError, match=r"0\.weight"):
        keep(flwr.ArrayRecord([np.ones((2, 2), np.float32)]), path, network())
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.zeros(2, 3).to_sparse(), "no plain array"),
        (torch.zeros(2, 3, device="meta"), "no plain array"),
        (torch.full((2, 3), 1e300, dtype=torch.float64), "more than float32 does"),
        (torch.zeros(1).expand(1 << 40), "numbers"),
    ],
)
def test_a_tensor_that_is_no_weights_is_told(tensor: torch.Tensor, said: str, tmp_path: Path) -> None:
    torch.save({"model": {"w": tensor}, "train_conf": {}}, tmp_path / "FL_global_model.pt")
    with pytest.raises(DataError, match=said):
        plain_weights(tmp_path / "FL_global_model.pt")


def test_names_that_are_no_texts_and_members_that_are_no_arrays_are_told(tmp_path: Path, like: Path) -> None:
    torch.save({"model": {0: torch.zeros(2)}, "train_conf": {}}, tmp_path / "numbers.pt")
    with pytest.raises(DataError, match="named 0"):
        plain_weights(tmp_path / "numbers.pt")
    with zipfile.ZipFile(tmp_path / "raw.npz", "w") as archive:
        for name in network().state_dict():
            archive.writestr(name, "hello")
    with pytest.raises(DataError, match="is no array"):
        plain_weights(tmp_path / "raw.npz", like)
    np.savez(tmp_path / "wide.npz", w=np.zeros(2, np.longdouble))
    with pytest.raises(DataError, match="no numbers"):
        plain_weights(tmp_path / "wide.npz")


@pytest.mark.parametrize("names", [["0", "arr_0", "1", "2"], ["0", "1", "2", "4"], ["2", "3", "4", "5"]])
def test_a_list_with_a_place_that_is_missing_or_double_is_not_put_in_order(names: list[str], tmp_path: Path) -> None:
    """Four arrays of one shape would fit in any order."""
    torch.save({name: torch.zeros(2) for name in "abcd"}, tmp_path / "initial.pt")
    np.savez(tmp_path / "list.npz", **{name: np.full(2, number) for number, name in enumerate(names)})
    with pytest.raises(DataError, match="missing, or double"):
        plain_weights(tmp_path / "list.npz", tmp_path / "initial.pt")
