"""Pruning of networks as other people write them: MONAI's, in two and three dimensions; several inputs, odd modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import pytest
import strangers_networks as networks
import torch
from small_networks import ResNet, Transformer
from strangers_networks import IMAGE, STRUCTURES, UNCOPYABLE, made
from torch import nn

from edgedeploy.compress.prune import channel_widths, prune
from edgedeploy.compress.shaped import example_inputs
from edgedeploy.errors import Unsupported
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.reference.calling import call, flat_tensors, named_tensors

FEATURES: Final = (8, 8, 16, 16, 16, 8)


def nets() -> Any:
    """MONAI's, whose import takes seconds: none while tests are collected."""
    from monai.networks import nets as found

    return found


class TiledInput(nn.Module):
    """As MONAI's VNet begins: the input, repeated to as many channels, is added to a layer's output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Conv3d(1, 16, 3, padding=1), nn.Conv3d(16, 16, 1), nn.Conv3d(16, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found = torch.relu(self.first(image) + torch.cat([image] * 16, 1))
        answer: torch.Tensor = self.head(torch.relu(self.second(found)))
        return answer


class Unetr(nn.Module):
    """A transformer over patches of a volume whose tokens a convolutional decoder turns into a mask, as UNETR does."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv3d(1, 32, 4, 4)
        self.position = nn.Parameter(torch.randn(1, 8, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.up = nn.ConvTranspose3d(32, 16, 4, 4)
        self.skip = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.LeakyReLU())
        self.head = nn.Conv3d(32, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        patches = self.patch(image)
        tokens = self.encoder(patches.flatten(2).transpose(1, 2) + self.position)
        deep = self.up(tokens.transpose(1, 2).reshape(patches.shape))
        answer: torch.Tensor = self.head(torch.cat([self.skip(image), deep], 1))
        return answer


NETWORKS: Final[Mapping[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]] = {
    "BasicUNet 2D": (lambda: nets().BasicUNet(2, 1, 2, features=FEATURES), (1, 1, 32, 32)),
    "BasicUNet 3D": (lambda: nets().BasicUNet(3, 1, 2, features=FEATURES), (1, 1, 32, 32, 32)),
    "UNet 3D": (lambda: nets().UNet(3, 1, 2, (8, 16, 16), (2, 2), num_res_units=2), (1, 1, 8, 8, 8)),
    "DynUNet 3D": (
        lambda: nets().DynUNet(3, 1, 2, [3, 3, 3], [1, 2, 2], [2, 2], filters=[8, 16, 16], res_block=True),
        (1, 1, 8, 8, 8),
    ),
    "SegResNet 3D": (lambda: nets().SegResNet(3, 16, 1, 2, blocks_down=(1, 1, 1), blocks_up=(1, 1)), (1, 1, 8, 8, 8)),
    "DenseNet": (lambda: nets().DenseNet(2, 1, 3, 16, 8, (2, 2), bn_size=2), (1, 1, 32, 32)),
    "ResNet": (ResNet, (1, 1, 16, 16)),
    "Transformer": (Transformer, (1, 1, 16, 16)),
    "UNETR": (Unetr, (1, 1, 8, 8, 8)),
    "tiled input": (TiledInput, (1, 1, 8, 8, 8)),
}


def shapes(outputs: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in named_tensors(outputs).items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_strangers_networks_get_narrower_and_answer_alike(name: str) -> None:
    kind, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = kind().eval()
    pruned = prune(model, (torch.zeros(shape),), 0.5)
    image = torch.randn(shape)
    with torch.inference_mode():
        assert shapes(pruned(image)) == shapes(model(image))
    wide, narrow = channel_widths(model), channel_widths(pruned)
    narrower = [layer for layer in wide if narrow[layer] < wide[layer]]
    assert len(narrower) >= (1 if name in ("tiled input", "Transformer", "UNETR", "SegResNet 3D") else len(wide) // 2)
    pruned.train()(torch.randn(2, *shape[1:])).square().mean().backward()
    assert all(parameter.grad is not None for parameter in pruned.parameters() if parameter.requires_grad)


def test_a_layer_that_is_added_to_the_input_keeps_its_channels() -> None:
    narrow = channel_widths(prune(TiledInput().eval(), (torch.zeros(1, 1, 4, 4, 4),), 0.5))
    assert narrow == {"first": 16, "second": 8, "head": 2}


def test_pruned_instance_norms_keep_the_right_channels() -> None:
    """Removing channels whose kernels are all zero changes nothing, so those must be the ones that go; and their norm's
    scales with them."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv3d(1, 16, 3), nn.InstanceNorm3d(16, affine=True), nn.PReLU(), nn.Conv3d(16, 2, 1)
    ).eval()
    with torch.no_grad():
        nn.init.normal_(model[1].weight)
        model[0].weight[1::2] = 0
        model[1].weight[1::2] = 0
        model[3].weight[:, 1::2] = 0
    pruned = prune(model, (torch.zeros(1, 1, 8, 8, 8),), 0.5)
    image = torch.randn(1, 1, 8, 8, 8)
    torch.testing.assert_close(pruned(image), model(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", STRUCTURES)
def test_inputs_and_outputs_of_every_structure_are_pruned(name: str) -> None:
    kind, specs, _ = STRUCTURES[name]
    model = made(kind, specs)
    inputs = example_inputs(specs)
    pruned = prune(model, inputs, 0.5)
    assert channel_widths(pruned)["body.0"] == 8
    found, wanted = call(pruned, inputs), call(model, inputs)
    assert type(found) is type(wanted)
    assert shapes(found) == shapes(wanted)


@pytest.mark.parametrize("name", UNCOPYABLE)
def test_modules_that_python_cannot_copy_are_pruned_and_left_alone(name: str) -> None:
    model = made(UNCOPYABLE[name])
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    pruned = prune(model, example_inputs(IMAGE), 0.5)
    assert channel_widths(pruned)["middle"] == 8
    assert all(torch.isfinite(tensor).all() for tensor in flat_tensors(pruned(torch.randn(1, 1, 16, 16))))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    untouched = prune(model, example_inputs(IMAGE), 1.0)
    assert list(untouched.state_dict()) == list(weights)


def test_frozen_layers_are_pruned_and_stay_frozen() -> None:
    model = made(networks.InDict)
    model.middle.requires_grad_(False)  # type: ignore[operator, union-attr]
    pruned = prune(model, example_inputs(IMAGE), 0.5)
    assert channel_widths(pruned)["middle"] == 8
    assert [name for name, one in pruned.named_parameters() if not one.requires_grad] == [
        "middle.weight",
        "middle.bias",
    ]


def test_what_cannot_be_pruned_is_one_line_that_names_the_module() -> None:
    class Fixed(nn.Module):
        """Its own weights know the width of the layer before, which no tool can see."""

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            if values.shape[1] != 16:
                raise ValueError("sixteen channels\nor nothing")
            return values.detach() * 2 + values

    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.fixed, self.head = nn.Conv2d(1, 16, 1), Fixed(), nn.Conv2d(16, 2, 1)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.head(self.fixed(self.body(image)))
            return found

    with pytest.raises(Unsupported, match="no layer got narrower"):
        prune(Stubborn().eval(), (torch.zeros(1, 1, 8, 8),), 0.5)
    with pytest.raises(Unsupported, match=r"in body Conv2d: RuntimeError: Given groups=1.*Search width = 1") as refused:
        prune(Stubborn().eval(), (torch.zeros(1, 3, 8, 8),), 0.5)
    assert "\n" not in str(refused.value)
    with pytest.raises(Unsupported, match=r"in 1 Fixed: ValueError: sixteen channels\. Search"):
        prune(nn.Sequential(nn.Conv2d(1, 8, 1)).append(Fixed()).eval(), (torch.zeros(1, 1, 8, 8),), 0.5)


def test_specs_give_inputs_by_name() -> None:
    specs = (TensorSpec("image", "float32", (1, 1, 4, 4)), TensorSpec("index", "int64", (1, 2)))
    found = example_inputs(specs)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in found.items()} == {
        "image": (torch.float32, (1, 1, 4, 4)),
        "index": (torch.int64, (1, 2)),
    }
