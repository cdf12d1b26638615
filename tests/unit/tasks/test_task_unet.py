"""The U-Net: shapes, seeds, and what the two kinds of upsampling share."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from edgedeploy.errors import SpecError
from edgedeploy.tasks.segmentation.unet import build_unet

KINDS = ("transposed", "resize")


def unet(upsampling: str = "transposed", seed: int = 0, **changes: int) -> Any:
    shape = {"in_channels": 1, "classes": 3, "base": 4, "depth": 3, **changes}
    return build_unet(upsampling=upsampling, seed=seed, **shape).eval()


@pytest.mark.parametrize("upsampling", KINDS)
@pytest.mark.parametrize(("height", "width", "depth"), [(64, 64, 3), (32, 96, 3), (16, 16, 4), (8, 8, 1)])
def test_logits_have_the_size_of_the_image(upsampling: str, height: int, width: int, depth: int) -> None:
    model = unet(upsampling, depth=depth, in_channels=2, classes=5)
    assert model(torch.zeros(2, 2, height, width)).shape == (2, 5, height, width)


@pytest.mark.parametrize("upsampling", KINDS)
def test_the_seed_decides_the_weights_and_nothing_else_is_touched(upsampling: str) -> None:
    torch.manual_seed(123)
    state = torch.get_rng_state()
    first, again, other = unet(upsampling, 3), unet(upsampling, 3), unet(upsampling, 4)
    assert torch.equal(torch.get_rng_state(), state)
    image = torch.ones(1, 1, 32, 32)
    assert torch.equal(first(image), again(image))
    assert not torch.equal(first(image), other(image))


def test_the_two_kinds_share_every_name_outside_the_upsampling() -> None:
    transposed, resize = (unet(kind).state_dict() for kind in KINDS)
    shared = {name for name in transposed if not name.startswith("up.")}
    assert shared == {name for name in resize if not name.startswith("up.")}
    assert all(transposed[name].shape == resize[name].shape for name in shared)
    assert len(shared) > 50


def test_no_kernel_of_one_kind_can_be_inherited_as_one_of_the_other() -> None:
    transposed, resize = (unet(kind).state_dict() for kind in KINDS)
    same = [n for n in transposed if n.startswith("up.") and n in resize and transposed[n].shape == resize[n].shape]
    assert same == []


@pytest.mark.parametrize("upsampling", KINDS)
def test_the_skips_carry_detail(upsampling: str) -> None:
    """One pixel changes the answer most beside it: the lowest level alone only says which 8 x 8 block it is in."""
    model = unet(upsampling)
    image = torch.zeros(1, 1, 32, 32)
    spot = image.clone()
    spot[0, 0, 13, 18] = 3.0
    with torch.no_grad():
        change = (model(spot) - model(image)).abs().sum(dim=1)[0]
    row, column = divmod(int(change.argmax()), 32)
    assert max(abs(row - 13), abs(column - 18)) <= 3
    assert change.max() > 100 * change[:4].max()


@pytest.mark.parametrize("upsampling", KINDS)
def test_every_weight_takes_part(upsampling: str) -> None:
    model = unet(upsampling).train()
    model(torch.randn(2, 1, 32, 32)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_an_unknown_upsampling_names_the_near_miss() -> None:
    with pytest.raises(SpecError, match=r"transpose'.*Did you mean 'transposed'"):
        unet("transpose")
