"""A small network by each way: what arrives answers alike, within the bytes that were allowed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgedeploy.compress.codec.container import Packed, from_bytes, to_bytes
from edgedeploy.compress.codec.curvature import curvatures, is_matrix, matrix_of, weights_of
from edgedeploy.compress.codec.delta import update_bytes, updated
from edgedeploy.compress.codec.folding import folded
from edgedeploy.compress.codec.method import decoded, float32_bytes, shipped
from edgedeploy.compress.codec.shipping import at_price, following, layers_of, priced
from edgedeploy.errors import Unsupported
from edgedeploy.records.storage import storage_of

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "docs" / "examples"))
from squares import make_task

TASK = make_task(32)
ARCH = {"kernel": 3}


def network() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()),
        *(nn.ConvTranspose2d(24, 16, 2, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 4)), nn.Flatten()),
        nn.Linear(256, 2),
    )
    for one in net.modules():
        if isinstance(one, nn.BatchNorm2d):
            nn.init.normal_(one.running_mean, std=0.3)
            nn.init.uniform_(one.running_var, 0.3, 2.0)
            nn.init.uniform_(one.weight, 0.5, 2.0)
    return net.eval()


def inputs() -> list[Any]:
    return [pair[0] for pair in TASK.batches(0, 8, **ARCH)]


def apart(first: nn.Module, second: nn.Module) -> float:
    """Relative error of the answers."""
    with torch.no_grad():
        a, b = (torch.cat([net(one) for one in inputs()]) for net in (first, second))
    return float((a - b).norm() / a.norm())


class SquaresLike:
    """The task of squares with the network of this file."""

    name = "squares-like"

    def __getattr__(self, name: str) -> Any:
        return getattr(TASK, name)

    def build(self, **arch: Any) -> nn.Module:
        return network()


def test_folding_leaves_the_answers_and_makes_three_of_four_arrays_constant() -> None:
    net = network()
    flat = folded(net, inputs()[0])
    assert apart(net, flat) < 1e-5
    norm: Any = flat[1]
    assert bool((norm.weight == 1).all())
    assert bool((norm.running_mean == 0).all())
    assert torch.equal(network()[0].weight, net[0].weight), "the model itself is left as it is"  # type: ignore[index]


class Backwards(nn.Sequential):
    """Calls what it holds in another order than it lists it."""

    def forward(self, image: Any) -> Any:
        return self[0](self[1](image))


def test_a_network_that_calls_its_layers_in_another_order_is_not_folded() -> None:
    torch.manual_seed(0)
    net = Backwards(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
    nn.init.uniform_(net[1].running_var, 0.3, 2.0)  # type: ignore[arg-type]
    image = torch.randn(1, 3, 8, 8)
    flat = folded(net.eval(), image)
    assert bool(torch.equal(flat(image), net(image)))


def test_weights_as_a_matrix_multiply_what_is_read() -> None:
    net = network()
    for layer in (net[0], net[6], net[10]):  # type: ignore[index]
        matrix = matrix_of(layer, layer.weight)
        assert torch.equal(weights_of(layer, matrix, tuple(layer.weight.shape)), layer.weight)
        assert is_matrix(layer)
    found = curvatures(net, inputs(), 0)
    assert found["0"].reads.shape == (9, 9)
    assert found["6"].reads.shape == (24, 24)
    assert len(found["6"].outputs) == 16 * 4
    assert all(np.linalg.eigvalsh(one.reads).min() > -1e-6 * np.trace(one.reads) for one in found.values())


@pytest.mark.parametrize("way", ["int8-zstd", "uniform:0.2", "hyper:4", "uniform:6x"])
def test_what_arrives_answers_alike(way: str) -> None:
    if way == "int8-zstd":
        pytest.importorskip("zstandard")
    net = network()
    data, arrived = shipped(net, SquaresLike(), ARCH, storage_of(way))  # type: ignore[arg-type]
    assert apart(net, arrived) < 0.25
    assert len(data) < 0.5 * float32_bytes(net)
    _, arrays = from_bytes(data)
    assert all(np.array_equal(arrays[name], value.numpy()) for name, value in arrived.state_dict().items())
    assert shipped(net, SquaresLike(), ARCH, storage_of(way))[0] == data, "the same bytes twice"  # type: ignore[arg-type]


def test_a_share_of_float32_is_kept_to_and_errs_less_than_equal_steps_of_that_size() -> None:
    net = network()
    data, arrived = shipped(net, SquaresLike(), ARCH, storage_of("uniform:8x"))  # type: ignore[arg-type]
    assert len(data) <= float32_bytes(net) / 8
    plain, other = max(
        (shipped(net, SquaresLike(), ARCH, storage_of(f"uniform:{step}")) for step in (0.3, 0.4, 0.5, 0.6)),  # type: ignore[arg-type]
        key=lambda pair: len(pair[0]) if len(pair[0]) <= len(data) * 1.05 else 0,
    )
    assert apart(net, arrived) < apart(net, other), len(plain)


def test_too_few_bytes_are_refused() -> None:
    with pytest.raises(Unsupported, match="so few bytes"):
        shipped(network(), SquaresLike(), ARCH, storage_of("uniform:32x"))  # type: ignore[arg-type]


def test_the_next_release_of_a_model_is_a_short_update() -> None:
    flat = folded(network(), inputs()[0])
    old, price = priced(flat, inputs(), float32_bytes(flat) // 8, 0)
    later = folded(network(), inputs()[0])
    with torch.no_grad():
        for parameter in later.parameters():
            parameter.add_(0.01 * parameter.std() * torch.randn_like(parameter) if parameter.numel() > 64 else 0.0)
    new = following(later, inputs(), old, price, 0)
    layers = layers_of(later, curvatures(later, inputs(), 0))
    anew = at_price({name: value.numpy() for name, value in later.state_dict().items()}, layers, price)
    update = update_bytes(old.decoded(), new)
    assert len(update) < 0.6 * len(to_bytes(new))
    assert len(update) < len(update_bytes(old.decoded(), anew))
    arrays = updated(old.decoded(), update)
    assert apart(later, decoded(later, arrays)) < 1.5 * apart(later, decoded(later, anew.decoded()))
    assert isinstance(new, Packed)
