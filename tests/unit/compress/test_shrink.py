"""Smaller transformers: what goes, what stays the same, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_transformers import KINDS, SIZE, Joint, images, vit
from torch import nn

from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.shrink.apply import WAYS, shrunk
from edgedeploy.compress.shrink.given import Given
from edgedeploy.compress.shrink.heads import with_own_heads
from edgedeploy.compress.shrink.moments import Moment, moments_of
from edgedeploy.compress.shrink.parts import attentions_of, stacks_of
from edgedeploy.compress.shrink.rank import low_rank, tucker
from edgedeploy.compress.shrink.tokens import MergedBlocks, groups_of
from edgedeploy.errors import Unsupported
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.shrink import Shrink
from edgedeploy.reference.export import export_reference

IMAGES = images(6, 3)[0]
ONE = {"image": IMAGES[:1]}
LEAST = {"heads": 0.5, "mlp": 0.5, "depth": 0.5, "rank": 0.5, "tokens": 0.6}


def feeds() -> Iterator[dict[str, torch.Tensor]]:
    return ({"image": image[None]} for image in IMAGES)


def answers(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IMAGES)
    return found


def weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def small(kind: str = "joint", **sizes: int) -> nn.Module:
    return vit(kind, **{"dim": 32, "depth": 2, **sizes})


def off(model: nn.Module, smaller: nn.Module) -> float:
    return float((answers(smaller) - answers(model)).norm() / answers(model).norm())


@pytest.mark.parametrize("kind", KINDS)
def test_parts_are_found_however_attention_is_written(kind: str) -> None:
    model = small(kind, depth=3)
    assert len(attentions_of(model, ONE)) == 3
    assert [len(stack.blocks) for stack in stacks_of(model, ONE)] == [3]
    before = answers(model)
    given = Given(ONE, None)
    assert len(with_own_heads(model, given)) == 3
    torch.testing.assert_close(answers(model), before, atol=1e-5, rtol=1e-5)
    assert len(with_own_heads(model, given)) == 3, "and are found again"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WAYS)
def test_the_weights_of_every_choice_are_read_back(kind: str, name: str, tmp_path: Path) -> None:
    model = small(kind)
    smaller = shrunk(model, Shrink(**{name: LEAST[name]}), ONE, feeds)
    assert weights(smaller) < weights(model) or name == "tokens"
    save_weights(smaller, tmp_path / "weights.pt")
    again = shrunk(model, Shrink(**{name: LEAST[name]}), ONE, None, list(smaller.state_dict()))
    torch.testing.assert_close(answers(load_weights(again, tmp_path / "weights.pt")), answers(smaller))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WAYS)
def test_a_network_without_weights_is_made_smaller_without_a_case(kind: str, name: str) -> None:
    model = small(kind)
    shapes = {
        key: value.shape for key, value in shrunk(model, Shrink(**{name: LEAST[name]}), ONE, None).state_dict().items()
    }
    made = shrunk(model, Shrink(**{name: LEAST[name]}), ONE, feeds).state_dict()
    assert sorted(map(str, shapes.values())) == sorted(str(value.shape) for value in made.values())


def test_all_choices_stand_together_and_are_read_back() -> None:
    model, shrink = small("several", depth=4), Shrink(0.5, 0.5, 0.5, 0.5, 0.6)
    smaller = shrunk(model, shrink, ONE, feeds)
    again = shrunk(model, shrink, ONE, None, list(smaller.state_dict()))
    again.load_state_dict(smaller.state_dict())
    torch.testing.assert_close(answers(again), answers(smaller))


def test_a_network_that_is_a_list_of_blocks_is_read_back() -> None:
    model, shrink = nn.Sequential(*small(depth=6).get_submodule("blocks").children()), Shrink(depth=0.7, tokens=0.6)
    torch.manual_seed(0)
    cases = [{"tokens": tokens} for tokens in torch.randn(3, 1, 17, 32)]
    smaller = shrunk(model, shrink, cases[0], lambda: cases)
    again = shrunk(model, shrink, cases[0], None, list(smaller.state_dict()))
    again.load_state_dict(smaller.state_dict())
    torch.testing.assert_close(again(cases[1]["tokens"]), smaller(cases[1]["tokens"]))


@pytest.mark.parametrize("name", ["heads", "mlp"])
def test_what_calibration_chooses_and_fits_is_nearer_than_what_comes_first(name: str) -> None:
    model = small()
    chosen = shrunk(model, Shrink(**{name: 0.5}), ONE, feeds)
    first = shrunk(model, Shrink(**{name: 0.5}), ONE, None)
    assert off(model, chosen) < 0.7 * off(model, first)


def test_features_that_never_change_go_without_a_trace() -> None:
    model = small()
    for block in model.get_submodule("blocks").children():
        with torch.no_grad():
            block.get_submodule("fc1").weight[::2] = 0.0  # their bias alone reaches the second layer
    assert off(model, shrunk(model, Shrink(mlp=0.5), ONE, feeds)) < 1e-3


def test_heads_that_say_nothing_go_first() -> None:
    model = small(heads=4)
    for block in model.get_submodule("blocks").children():
        with torch.no_grad():
            block.get_submodule("attn").proj.weight[:, 8:24] = 0.0  # the second and the third head
    smaller = shrunk(model, Shrink(heads=0.5), ONE, feeds)
    assert off(model, smaller) < 1e-5
    assert [made.heads for made in attentions_of(smaller, ONE).values()] == [2, 2]


def test_the_block_that_changes_nothing_goes_first() -> None:
    model = small(depth=4)
    block = model.get_submodule("blocks.2")
    for name in ("attn.proj", "fc2"):
        nn.init.zeros_(block.get_submodule(name).weight)
        nn.init.zeros_(block.get_submodule(name).bias)
    assert off(model, shrunk(model, Shrink(depth=0.75), ONE, feeds)) < 1e-6


def moment_of(rows: torch.Tensor) -> Moment:
    found = Moment()
    found.add(rows)
    return found


def test_factors_fit_what_a_layer_reads_and_not_its_weights() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(32, 48)
    rows = torch.randn(256, 8) @ torch.randn(8, 32) + torch.randn(32)  # eight directions about a mean
    fitted, plain = low_rank(layer, 0.25, moment_of(rows)), low_rank(layer, 0.25, None)
    with torch.no_grad():
        wanted = layer(rows)
        errors = [float((made(rows) - wanted).norm() / wanted.norm()) for made in (fitted, plain)]
    assert errors[0] < 1e-3
    assert errors[1] > 0.1
    torch.testing.assert_close(plain.weight, _cut(layer.weight, 8), atol=1e-5, rtol=1e-4)


def _cut(weight: torch.Tensor, rank: int) -> torch.Tensor:
    left, values, right = torch.linalg.svd(weight.detach(), full_matrices=False)
    return left[:, :rank] * values[:rank] @ right[:rank]


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
def test_a_convolution_becomes_three(kind: type[Any]) -> None:
    torch.manual_seed(0)
    layer = kind(16, 24, 3, stride=2, padding=1)
    shape = (2, 16, *([7] * (layer.weight.ndim - 2)))
    with torch.no_grad():
        layer.weight.copy_(torch.einsum("ij,j...->i...", torch.randn(24, 12) @ torch.randn(12, 24), layer.weight))
    mixed = torch.einsum("ij,nj...->ni...", torch.randn(16, 8) @ torch.randn(8, 16), torch.randn(shape))
    made = tucker(layer, 0.5, moment_of(mixed.movedim(1, -1).reshape(-1, 16)))
    with torch.no_grad():
        wanted = layer(mixed)
        assert float((made(mixed) - wanted).norm() / wanted.norm()) < 1e-2
        assert float((tucker(layer, 0.5, None)(mixed) - wanted).norm() / wanted.norm()) > 0.05
    assert weights(made) < 0.5 * weights(layer)


def test_every_token_is_in_one_group_and_the_first_is_alone() -> None:
    groups = groups_of(torch.randn(3, 17, 8), 6)
    assert groups.shape == (3, 17, 11)
    assert torch.equal(groups.sum(2), torch.ones(3, 17)), "each token in one group"
    assert bool((groups.sum(1) >= 1).all()), "no group is empty"
    first = groups[:, 0].argmax(-1)
    assert [float(case[:, place].sum()) for case, place in zip(groups, first, strict=True)] == [1.0] * 3


def test_tokens_that_are_equal_are_merged_without_a_trace() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
    halves = torch.randn(2, 8, 8)
    tokens = torch.cat([torch.randn(2, 1, 8), halves.repeat_interleave(2, 1)], 1)
    with torch.no_grad():
        torch.testing.assert_close(MergedBlocks([block], 8)(tokens), block(tokens))


def test_a_mask_goes_through_to_attention_with_heads_of_its_own() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(16, 4, batch_first=False).eval()
    tokens, padding = torch.randn(5, 2, 16), torch.tensor([[False] * 5, [False, False, False, True, True]])
    holder = nn.ModuleDict({"layer": layer})
    holder.forward = lambda image: holder["layer"](image, image, image, key_padding_mask=padding)[0]  # type: ignore[method-assign]
    with torch.no_grad():
        before = holder(tokens)
        assert with_own_heads(holder, Given({"image": tokens}, None)) == ["layer"]
        torch.testing.assert_close(holder(tokens), before, atol=1e-5, rtol=1e-5)


class Other(Joint):
    """Looks like attention, and divides by another number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(1.1 * x)


def test_one_layer_that_all_blocks_share_loses_its_heads_in_each_of_them() -> None:
    model = small(depth=3)
    (first, *others) = attentions_of(model, ONE)
    for name in others:
        model.set_submodule(name, model.get_submodule(first))
    smaller = shrunk(model, Shrink.of({"heads": 0.5}, ()), ONE, feeds)
    assert weights(smaller) < weights(model)
    layers = {id(smaller.get_submodule(name)) for name in (first, *others)}
    assert len(layers) == 1


def test_what_only_looks_like_attention_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(4, 16), Other(16, 2), nn.Linear(16, 2)).eval()
    with pytest.raises(Unsupported, match="no layer of the network is softmax self-attention"):
        shrunk(model, Shrink(heads=0.5), {"image": torch.randn(1, 5, 4)}, None)


CNN = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)).eval()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("heads", "no layer of the network is softmax self-attention"),
        ("mlp", "no features that two linear layers alone share"),
        ("depth", "no list of two or more blocks of 3 or more linear layers each that give tokens"),
        ("rank", "no layer would multiply less"),
        ("tokens", "no list of two or more blocks of 3 or more linear layers each that give tokens"),
    ],
)
def test_a_network_that_has_none_of_it_is_refused(name: str, found: str) -> None:
    with pytest.raises(Unsupported, match=found) as told:
        shrunk(CNN, Shrink(**{name: 0.5}), ONE, None)
    assert f"Leave `{name}` out" in told.value.remedy


def test_a_share_that_leaves_everything_is_refused() -> None:
    with pytest.raises(Unsupported, match="one head"):
        shrunk(small(heads=1), Shrink(heads=0.5), ONE, None)


def test_the_original_is_left_as_it_is_and_what_was_frozen_stays_frozen() -> None:
    model = small()
    model.get_submodule("blocks.0").requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    smaller = shrunk(model, Shrink(0.5, 0.5, 1.0, 0.5), ONE, feeds)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    flags = {name.startswith("blocks.0."): parameter.requires_grad for name, parameter in smaller.named_parameters()}
    assert flags == {False: True, True: False}


@pytest.mark.parametrize("name", WAYS)
def test_the_exported_network_is_smaller_and_answers_the_same(name: str, tmp_path: Path) -> None:
    import onnxruntime

    model = small()
    smaller = shrunk(model, Shrink(**{name: LEAST[name]}), ONE, feeds)
    file = tmp_path / "reference.onnx"
    export_reference(smaller, (TensorSpec("image", "float32", (1, 1, SIZE, SIZE)),), file, samples=[_numpy(ONE)])
    (found,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, _numpy(ONE))
    np.testing.assert_allclose(found, answers(smaller)[:1].numpy(), atol=1e-5)
    if name != "tokens":
        assert file.stat().st_size < 4 * weights(model)


def _numpy(values: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.numpy() for name, value in values.items()}


def test_moments_are_those_of_what_was_read() -> None:
    model = small()
    found = moments_of(model, ["head"], feeds)["head"]
    rows: list[torch.Tensor] = []
    handle = model.get_submodule("head").register_forward_pre_hook(lambda module, args: rows.append(args[0]))
    answers(model)
    handle.remove()
    assert found.count == len(IMAGES)
    torch.testing.assert_close(found.mean.float(), rows[0].mean(0), atol=1e-5, rtol=1e-4)


def test_moments_hold_what_varies_little_about_a_large_mean() -> None:
    torch.manual_seed(0)
    rows = (1000.0 + 1e-2 * torch.randn(4000, 6)).float()
    found = Moment()
    for part in rows.split(1000):
        found.add(part)
    wanted = torch.cov(rows.double().T, correction=0)
    torch.testing.assert_close(found.spread(centred=True), wanted, rtol=5e-3, atol=1e-6)
    torch.testing.assert_close(found.mean, rows.double().mean(0), rtol=1e-7, atol=1e-4)
