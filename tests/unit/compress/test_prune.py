"""Pruning on networks whose dependencies differ: skips, sums, several heads, shared outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from edgedeploy.compress.prune import CHANNEL_MULTIPLE, channel_widths, output_layers, prune
from edgedeploy.errors import SpecError, Unsupported

IMAGE = (torch.zeros(1, 1, 32, 32),)


def block(source: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(source, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class Skips(nn.Module):
    """Encoder and decoder joined by concatenation, with a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = block(1, 16), block(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.join, self.classes = block(32, 16), nn.Conv2d(16, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skip = self.first(image)
        deep = self.second(nn.functional.max_pool2d(skip, 2))
        return self.classes(self.join(torch.cat([skip, self.up(deep)], 1)))


class Sums(Skips):
    """The skip is added, so both sides have to lose the same channels; the output is a softmax of a sum of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.join, self.other = block(16, 16), nn.Conv2d(16, 3, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skip = self.first(image)
        deep = self.second(nn.functional.max_pool2d(skip, 2))
        joined = self.join(skip + self.up(deep))
        return torch.softmax(self.classes(joined) + self.other(skip), 1)


class Heads(Skips):
    """Two outputs in a dict; one of them is used further inside: deep supervision."""

    def __init__(self) -> None:
        super().__init__()
        del self.up, self.join, self.classes
        self.coarse, self.score = nn.Conv2d(32, 16, 1), nn.Linear(16, 2)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        deep = self.second(nn.functional.max_pool2d(self.first(image), 2))
        coarse = self.coarse(deep)
        return {"coarse": coarse, "score": self.score(torch.relu(coarse).mean((2, 3)))}


HEADS = [(Skips, {"classes"}), (Sums, {"classes", "other"}), (Heads, {"coarse", "score"})]


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


@pytest.mark.parametrize(("kind", "heads"), HEADS, ids=[kind.__name__ for kind, _ in HEADS])
def test_output_layers_are_found_by_the_graph(kind: Callable[[], nn.Module], heads: set[str]) -> None:
    model = made(kind)
    found = output_layers(model, IMAGE)
    assert set(found) == heads
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize(("kind", "heads"), HEADS, ids=[kind.__name__ for kind, _ in HEADS])
def test_a_narrower_network_has_no_wider_layer(kind: Callable[[], nn.Module], heads: set[str]) -> None:
    """Of 8 channels a third is 2, which is none in steps of 4: it keeps 4, and not all of them."""
    model = made(kind)
    before = channel_widths(model)
    for width in (0.6, 0.4, 0.3, 0.2, 0.1, 0.05):
        found = channel_widths(prune(model, IMAGE, width))
        assert all(found[name] <= before[name] for name in found)
        before = found
    assert {found[name] for name in found if name not in heads} == {CHANNEL_MULTIPLE}


def test_of_forty_channels_a_tenth_is_four() -> None:
    model = made(lambda: nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Conv2d(40, 2, 1)))
    assert channel_widths(prune(model, (torch.zeros(1, 3, 8, 8),), 0.1)) == {"0": 4, "2": 2}


@pytest.mark.parametrize(("kind", "heads"), HEADS, ids=[kind.__name__ for kind, _ in HEADS])
@pytest.mark.parametrize("width", [0.75, 0.5, 0.3])
def test_pruned_network_is_narrower_and_answers_alike(
    kind: Callable[[], nn.Module], heads: set[str], width: float
) -> None:
    model = made(kind)
    before = copy.deepcopy(model.state_dict())
    pruned = prune(model, IMAGE, width)
    wide, narrow = channel_widths(model), channel_widths(pruned)
    for name, channels in narrow.items():
        share = 1.0 if name in heads else width
        assert channels <= wide[name] * share + 1e-9 or channels == CHANNEL_MULTIPLE
        assert name in heads or (channels < wide[name] and channels % CHANNEL_MULTIPLE == 0)
    shapes = [[tensor.shape for tensor in _tuple(net(*IMAGE))] for net in (model, pruned)]
    assert shapes[0] == shapes[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items()), (
        "the original is untouched"
    )


def _tuple(outputs: object) -> tuple[torch.Tensor, ...]:
    return tuple(outputs.values()) if isinstance(outputs, dict) else (outputs,)  # type: ignore[return-value]


def test_dead_channels_go_first() -> None:
    """Removing channels whose kernels are all zero changes nothing: so those must be the ones that go."""
    model = made(Skips)
    image = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        for name, conv in model.named_modules():
            if isinstance(conv, nn.Conv2d) and name != "classes":
                conv.weight[1::2] = 0
            if isinstance(conv, nn.BatchNorm2d):
                conv.weight[1::2] = 0
        model.up.weight[:, 1::2] = 0
        model.up.bias[1::2] = 0
    pruned = prune(model, IMAGE, 0.5)
    with torch.no_grad():
        torch.testing.assert_close(pruned(image), model(image), rtol=1e-4, atol=1e-5)


def test_equal_weights_give_equal_networks() -> None:
    first, second = (prune(made(Skips), IMAGE, 0.5).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_full_width_is_an_untouched_copy() -> None:
    model = made(Skips)
    copied = prune(model, IMAGE, 1.0)
    assert copied is not model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in copied.state_dict().items())


def test_pruned_network_can_learn() -> None:
    pruned = prune(made(Skips), IMAGE, 0.5).train()
    pruned(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())


def test_protected_layers_keep_their_channels() -> None:
    narrow = channel_widths(prune(made(Skips), IMAGE, 0.5, protect=["second.0"]))
    assert narrow["second.0"] == 32
    assert narrow["join.0"] == 8


def test_unknown_protected_layer_is_named() -> None:
    with pytest.raises(SpecError, match="thrid"):
        prune(made(Skips), IMAGE, 0.5, protect=["thrid"])


@pytest.mark.parametrize("width", [0.0, -0.5, 1.01, float("nan")])
def test_width_out_of_range(width: float) -> None:
    with pytest.raises(SpecError, match="width"):
        prune(made(Skips), IMAGE, width)


def test_nothing_to_prune_is_said() -> None:
    """The only layers are the outputs themselves."""
    with pytest.raises(Unsupported, match="no layer got narrower"):
        prune(nn.Conv2d(1, 8, 1), IMAGE, 0.5)
