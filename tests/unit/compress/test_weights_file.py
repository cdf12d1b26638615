"""Trained weights that a user brings: usual files are read, nothing in them is run, and what does not fit is told."""

from __future__ import annotations

import hashlib
import os
import re
import zipfile
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgedeploy.compress import weights_file as module
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import DataError, SpecError


def network(seed: int, channels: int = 4) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, 2, 1))


TRAINED = network(7)
STATE = dict(TRAINED.state_dict())


def prefixed(*prefixes: str) -> dict[str, Any]:
    return {f"{prefix}{name}": tensor for prefix in prefixes for name, tensor in STATE.items()}


def loaded(path: Path, key: str = "") -> tuple[nn.Module, str]:
    model = network(0)
    found = WeightsFile(path, key).load_into(model)
    assert found.origin == "checkpoint"
    assert found.file == path.name
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not model.training
    return model, found.key


def is_trained(model: nn.Module) -> bool:
    return all(torch.equal(tensor, STATE[name]) for name, tensor in model.state_dict().items())


OPTIMISER = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}


@pytest.mark.parametrize(
    ("content", "key", "where"),
    [
        (STATE, "", ""),
        (OrderedDict(STATE), "", ""),
        ({"state_dict": STATE, "epoch": 3, "optimizer": OPTIMISER}, "", "state_dict"),
        ({"model": STATE, "best": 0.9}, "", "model"),
        ({"model_state_dict": STATE, "loss": torch.tensor(0.1)}, "", "model_state_dict"),
        ({"net": STATE}, "", "net"),
        ({"of_its_own": STATE}, "", "of_its_own"),
        ({"model": {"state_dict": STATE}}, "", "model.state_dict"),
        ({"model": {"state_dict": STATE}}, "model.state_dict", "model.state_dict"),
        ({"a.b": STATE, "c": STATE}, "a.b", "a.b"),
        ({"model": STATE, "ema": STATE}, "ema", "ema"),
        ({"model": STATE, "args": Namespace(lr=0.1, out=Path("runs"), best=np.float64(0.9))}, "", "model"),
        ({"state_dict": STATE, "dice": np.float32(0.8), "step": np.int64(7)}, "", "state_dict"),
        ({"generator": STATE, "discriminator": {"0.weight": torch.zeros(3)}}, "", "generator"),
        (prefixed("module."), "", ""),
        (prefixed("_orig_mod."), "", ""),
        (prefixed("module._orig_mod."), "", ""),
        (prefixed("_orig_mod.module."), "", ""),
        ({name.replace("0.", "0._orig_mod."): tensor for name, tensor in STATE.items()}, "", ""),
        ({"state_dict": {**prefixed("model."), "loss.weight": torch.ones(2)}, "hyper": {"lr": 1}}, "", "state_dict"),
        ({"state_dict": prefixed("model._orig_mod.")}, "", "state_dict"),
        ({name: tensor for name, tensor in STATE.items() if "num_batches" not in name}, "", ""),
        ({name: t.double() if t.is_floating_point() else t for name, t in STATE.items()}, "", ""),
    ],
)
def test_weights_are_found(content: Any, key: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "unet.pt"
    torch.save(content, path)
    model, found = loaded(path, key)
    assert is_trained(model)
    assert found == where


def test_the_format_of_older_torch_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert is_trained(loaded(tmp_path / "old.pth")[0])


@pytest.mark.parametrize("name", ["unet.safetensors", "unet.pt"])
def test_safetensors_are_read_whatever_the_file_is_called(name: str, tmp_path: Path) -> None:
    save_file(prefixed("module."), tmp_path / name)
    assert is_trained(loaded(tmp_path / name)[0])


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_a_tied_tensor_may_stand_there_once(tmp_path: Path) -> None:
    weight = torch.randn(5, 3)
    save_file({"embedding.weight": weight}, tmp_path / "tied.safetensors")
    model = Tied()
    WeightsFile(tmp_path / "tied.safetensors").load_into(model)
    assert torch.equal(model.head.weight, weight)


class Boxed(nn.Module):
    """Whose own names begin with ``model.``: they are no wrapper's."""

    def __init__(self) -> None:
        super().__init__()
        self.model = network(0)


def test_a_prefix_of_the_models_own_stays(tmp_path: Path) -> None:
    torch.save(prefixed("model."), tmp_path / "boxed.pt")
    model = Boxed()
    WeightsFile(tmp_path / "boxed.pt").load_into(model)
    assert is_trained(model.model)


# -- refused, with what to do


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("touched-by-a-checkpoint"),)  # type: ignore[return-value]


@pytest.mark.fault(32)
@pytest.mark.parametrize(
    ("content", "named"),
    [
        (network(0), r"torch\.nn\.modules\.container\.Sequential"),
        ({"model": network(0), "epoch": 3}, "Sequential"),
        ({"state_dict": STATE, "args": Runs()}, "Path|getattr|touch"),
    ],
)
def test_a_pickled_object_is_refused_because_it_runs_code(content: Any, named: str, tmp_path: Path) -> None:
    path = tmp_path / "whole.pt"
    torch.save(content, path)
    with pytest.raises(DataError, match=r"checkpoint whole\.pt: it holds a Python object.*runs code") as caught:
        loaded(path)
    assert "torch.save(model.state_dict()" in caught.value.remedy
    assert re.search(named, caught.value.found)
    assert not Path("touched-by-a-checkpoint").exists()


def test_a_program_of_torchscript_is_refused_with_the_way_to_its_weights(tmp_path: Path) -> None:
    torch.jit.trace(network(0).eval(), torch.zeros(1, 1, 8, 8)).save(str(tmp_path / "script.pt"))  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=r"TorchScript.*torch\.jit\.load\(\"script\.pt\"\)\.state_dict\(\)"):
        loaded(tmp_path / "script.pt")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "torch cannot read it|neither"),
        (lambda path: path.write_bytes(b"this is no checkpoint"), "neither a file of torch.save nor safetensors"),
        (lambda path: torch.save([1, 2], path), "holds no table of tensors, but a list"),
        (lambda path: torch.save({"epoch": 3, "lr": 0.1}, path), "no table of tensors, but keys epoch, lr"),
        (lambda path: torch.save({}, path), "no table of tensors"),
        (lambda path: path.mkdir(), "directory"),
        (os.mkfifo, "no regular file"),
        (lambda path: path.write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all}"), "damaged"),
        (lambda path: None, "no file at"),
    ],
)
def test_what_holds_no_weights_says_what_it_holds(write: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        loaded(path)
    assert caught.value.remedy


def test_a_torn_file_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "torn.pt"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"checkpoint torn\.pt"):
        loaded(path)


def test_an_onnx_file_is_told_its_own_kind(tmp_path: Path) -> None:
    (tmp_path / "unet.onnx").write_bytes(b"\x08\x08\x12\x07pytorch")
    with pytest.raises(DataError, match='kind = "onnx"'):
        loaded(tmp_path / "unet.onnx")


def test_sizes_are_bounded_also_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.pt"
    torch.save(STATE, path)
    monkeypatch.setattr(module, "LARGEST_BYTES", 1 << 20)
    loaded(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/99", b"\0" * (2 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(DataError, match=r"it holds 0\.0 GiB, and at most 0 GiB are read"):
        loaded(path)
    monkeypatch.setattr(module, "LARGEST_BYTES", 100)
    with pytest.raises(DataError, match="at most"):
        loaded(path)


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"model": STATE, "ema": STATE}, "", r"under model, ema, and 2 of them fit .*checkpoint_key = \"model\""),
        ({"a": {"x": torch.zeros(1)}, "b": {"y": torch.zeros(1)}}, "", "under a, b, and none of them fits"),
        ({"model": STATE}, "modle", r"checkpoint_key: nothing is under 'modle'.*Did you mean 'model'"),
        ({"model": {"state_dict": STATE}}, "model.state", r"nothing is under 'model.state'"),
        ({"model": STATE, "epoch": 3}, "epoch", "what is under 'epoch' is no table of tensors"),
        (STATE, "state_dict", r"nothing is under 'state_dict'.*leave checkpoint_key out"),
    ],
)
def test_a_key_that_is_wrong_or_has_to_be_told(content: Any, key: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "unet.pt"
    torch.save(content, path)
    with pytest.raises(SpecError, match=message):
        loaded(path, key)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            network(0, channels=6).state_dict(),
            r"for Sequential: 2 of the model's 9 tensors fit; other shape or numbers: 0.weight \(\[6, 1, 3, 3\] in "
            r"the file, \[4, 1, 3, 3\] in the model\).* and 3 more",
        ),
        (
            {name: tensor for name, tensor in STATE.items() if not name.startswith("3.")},
            r"7 of the model's 9 tensors fit; missing: 3.weight, 3.bias\. .*what build\(\) makes",
        ),
        ({**STATE, "4.weight": torch.zeros(1), "4.bias": torch.zeros(1)}, r"unexpected: 4.weight, 4.bias\."),
        ({"state_dict": {**STATE, "4.w": torch.zeros(1)}}, r"checkpoint unet.pt \(state_dict\) for Sequential: 9 of"),
        ({**STATE, "0.bias": torch.tensor([0.0, float("nan"), 0.0, 0.0])}, "0.bias holds NaN or Inf"),
    ],
)
def test_weights_of_another_model_are_told_by_name(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "unet.pt"
    torch.save(content, path)
    with pytest.raises(DataError, match=message) as caught:
        loaded(path)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensor: tensor.to(torch.complex64) * 1j, "complex64 in the file, float32 in the model"),
        (lambda tensor: (tensor * 100).to(torch.int8), "int8 in the file, float32 in the model"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "qint8 in the file"),
        (lambda tensor: tensor.to_sparse(), "float32 sparse_coo in the file"),
        (lambda tensor: tensor.to("meta"), "float32 without data in the file"),
    ],
    ids=["complex", "codes", "quantized", "sparse", "meta"],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_numbers_that_would_be_copied_as_others_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], told: str, tmp_path: Path
) -> None:
    """torch copies codes and complex numbers into float weights without a word."""
    path = tmp_path / "odd.pt"
    torch.save({**STATE, "0.weight": change(STATE["0.weight"])}, path)
    with pytest.raises(DataError, match=rf"other shape or numbers: 0\.weight \({told}") as caught:
        loaded(path)
    assert "Save the float weights" in caught.value.remedy


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_any_width_are_taken(kind: torch.dtype, tmp_path: Path) -> None:
    wide = {name: t.to(kind) if t.is_floating_point() else t for name, t in STATE.items()}
    torch.save(wide, tmp_path / "wide.pt")
    model, _ = loaded(tmp_path / "wide.pt")
    assert torch.equal(model.state_dict()["0.weight"], wide["0.weight"].float())


def test_a_name_with_a_null_byte_is_a_wrong_name() -> None:
    with pytest.raises(DataError, match="null byte"):
        WeightsFile(Path("a\0b.pt")).load_into(network(0))


def test_hooks_of_the_model_translate_older_names(tmp_path: Path) -> None:
    """torch's own, of weight normalisation: files from before parametrizations have ``weight_g`` and ``weight_v``."""
    model = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    older = {"0.bias": torch.ones(2), "0.weight_g": torch.ones(2, 1), "0.weight_v": torch.eye(2, 3)}
    torch.save(older, tmp_path / "older.pt")
    WeightsFile(tmp_path / "older.pt").load_into(model)
    assert torch.equal(model[0].weight, torch.eye(2, 3))
