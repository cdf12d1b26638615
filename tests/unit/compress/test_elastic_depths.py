"""Several depths trained at once in one network, alone and with its widths."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from mixed_blocks import MixerTask
from small_transformers import BlobTask, vit
from torch import nn

from edgedeploy.compress.elastic import Cut, cut_out, shallower, train_elastic
from edgedeploy.compress.family import Family, train_family
from edgedeploy.compress.kept import save_weights
from edgedeploy.compress.model import restore
from edgedeploy.compress.shrink.apply import shrunk
from edgedeploy.compress.shrink.depth import Skip, skipped, without
from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.records.elastic import Elastic, Part
from edgedeploy.records.shrink import Shrink
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.reference.copies import copied

ARCH: dict[str, Scalar] = {"kind": "joint"}
SHALLOW, NARROW, BOTH = Part(depth=0.5), Part(0.5, "bytes"), Part(0.5, "bytes", 0.5)


class Quick(BlobTask):
    recovery_recipe = TrainRecipe(1, 16, 2e-2, warmup_epochs=0, distill_weight=0.5)


def variant(part: Part, elastic: Elastic) -> Variant:
    shrink = Shrink(depth=part.depth)
    arch = tuple(ARCH.items())
    return Variant("none", "float32", part.width, arch, 1, allocation=part.allocation, shrink=shrink, elastic=elastic)


def blocks_of(model: nn.Module) -> set[str]:
    return {name for name, block in model.get_submodule("blocks").named_children() if not isinstance(block, Skip)}


def answers(model: nn.Module, task: BlobTask) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(task.drawn["selection"][0][:4])
    return found


def equal(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.fixture(scope="module")
def task() -> Quick:
    return Quick(cases=32)


@pytest.fixture
def cut_and_whole() -> tuple[Cut, nn.Module]:
    whole = vit(depth=4)
    return shallower(whole, {"blocks.1": Skip(0), "blocks.3": Skip(0)}), whole


def test_a_step_on_the_whole_network_moves_the_cut_and_one_on_the_cut_the_whole(
    cut_and_whole: tuple[Cut, nn.Module], task: Quick
) -> None:
    cut, whole = cut_and_whole
    assert all(value is whole.get_parameter(name) for name, value in cut.weights(whole).items())
    outputs = torch.func.functional_call(cut.model, cut.weights(whole), task.drawn["train"][0][:4])
    outputs.sum().backward()
    moved = {name for name, value in whole.named_parameters() if value.grad is not None and value.grad.any()}
    assert any(name.startswith("blocks.2.") for name in moved)
    assert not any(name.startswith(("blocks.1.", "blocks.3.")) for name in moved)
    before = cut_out(cut, whole, task, ARCH, 1, 0)
    with torch.no_grad():
        whole.get_parameter("blocks.2.fc1.weight").add_(1.0)
    after = cut_out(cut, whole, task, ARCH, 1, 0)
    assert torch.equal(after.get_parameter("blocks.2.fc1.weight"), before.get_parameter("blocks.2.fc1.weight") + 1.0)
    assert after.get_parameter("blocks.2.fc1.weight") is not whole.get_parameter("blocks.2.fc1.weight")


def test_what_is_cut_out_answers_as_the_trained_network_without_those_blocks(
    cut_and_whole: tuple[Cut, nn.Module], task: Quick
) -> None:
    cut, whole = cut_and_whole
    first = copied(whole)
    train_elastic(whole, task, task.recovery_recipe, [cut], arch=ARCH)
    model = cut_out(cut, whole, task, ARCH, 1, 0)  # it has no batch norms: nothing is measured anew
    skipping = copied(whole)
    for name in ("blocks.1", "blocks.3"):
        skipping.get_submodule(name).forward = lambda tokens: tokens
    assert torch.equal(answers(model, task), answers(skipping, task))
    assert not torch.equal(answers(model, task), answers(without(first, skipped(model)), task))


def test_weights_that_a_lost_block_shares_with_another_are_found() -> None:
    whole = vit(depth=3)
    whole.get_submodule("blocks.2").fc2 = whole.get_submodule("blocks.1.fc2")
    cut = shallower(whole, {"blocks.1": Skip(0)})
    assert cut.weights(whole)["blocks.2.fc2.weight"] is whole.get_parameter("blocks.1.fc2.weight")


@pytest.fixture(scope="module")
def trained(task: Quick) -> tuple[nn.Module, Family, Elastic]:
    """A family of a transformer whose third block changes nothing before the training, and much after it."""
    baseline = vit(depth=4)
    for name in ("attn.proj", "fc2"):
        layer = baseline.get_submodule(f"blocks.2.{name}")
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    elastic = Elastic(3, depths=(0.5, 0.75))
    return baseline, train_family(task, variant(SHALLOW, elastic), baseline), elastic


def test_the_blocks_are_those_that_stay_without_an_elastic_network(
    trained: tuple[nn.Module, Family, Elastic], task: Quick
) -> None:
    baseline, family, _ = trained
    images = [{"image": task.drawn["calibration"][0][place][None]} for place in range(32)]
    for depth in (0.5, 0.75):
        plain = shrunk(baseline, Shrink(depth=depth), images[0], lambda: images)
        assert blocks_of(family.models[Part(depth=depth)]) == blocks_of(plain)
    three = family.models[Part(depth=0.75)]
    assert blocks_of(three) == {"0", "1", "3"}
    assert all(
        torch.equal(value, three.get_parameter(name)) for name, value in family.models[SHALLOW].named_parameters()
    )


def test_weights_on_disk_tell_which_blocks_there_are(
    trained: tuple[nn.Module, Family, Elastic], task: Quick, tmp_path: Path
) -> None:
    baseline, family, elastic = trained
    other = copied(baseline)
    for name in ("attn.proj", "fc2"):  # by these weights the second block would go, not the third
        layers = [other.get_submodule(f"blocks.{place}.{name}") for place in (1, 2)]
        layers[1].load_state_dict(layers[0].state_dict())
        for value in layers[0].parameters():
            nn.init.zeros_(value)
    part = Part(depth=0.75)
    save_weights(family.models[part], tmp_path / "weights.pt")
    again = restore(task, variant(part, elastic), other, tmp_path / "weights.pt")
    assert blocks_of(again) == {"0", "1", "3"} and equal(again, family.models[part])


def test_widths_that_cannot_be_cut_say_so_each_and_the_depths_are_made(task: Quick) -> None:
    elastic = Elastic(1, (0.5,), ("bytes",), (0.5,))
    family = train_family(task, variant(SHALLOW, elastic), vit(depth=2, dim=32, heads=2))
    assert [*family.models] == [SHALLOW]
    assert {*family.refused} == {NARROW, BOTH}
    assert all("other channels when the weights change" in exc.found for exc in family.refused.values())


@pytest.fixture(scope="module")
def mixed() -> tuple[MixerTask, nn.Module, Mapping[Part, nn.Module], Elastic]:
    task = MixerTask(cases=64)
    elastic = Elastic(1, (0.5,), ("bytes",), (0.5,))
    baseline = task.build()
    family = train_family(task, variant(BOTH, elastic), baseline)
    assert not family.refused, family.refused
    return task, baseline, family.models, elastic


def test_each_pair_of_width_and_depth_is_a_part_of_the_same_network(
    mixed: tuple[MixerTask, nn.Module, Mapping[Part, nn.Module], Elastic],
) -> None:
    _, _, models, _ = mixed
    assert [*models] == [BOTH, SHALLOW, NARROW], "the smallest learns in each step"
    shallow, both = models[SHALLOW], models[BOTH]
    assert blocks_of(shallow) == blocks_of(both) and len(blocks_of(both)) == 2
    parts = dict(shallow.named_parameters())
    smaller = 0
    for name, value in both.named_parameters():
        assert bool(torch.isin(value, parts[name]).all()), f"{name} is of the whole network"
        smaller += value.numel() < parts[name].numel()
    assert smaller


@pytest.mark.parametrize("part", [BOTH, SHALLOW, NARROW], ids=["pair", "depth", "width"])
def test_each_cut_is_read_back(
    mixed: tuple[MixerTask, nn.Module, Mapping[Part, nn.Module], Elastic], part: Part, tmp_path: Path
) -> None:
    task, baseline, models, elastic = mixed
    save_weights(models[part], tmp_path / "weights.pt")
    again = restore(task, variant(part, elastic), baseline, tmp_path / "weights.pt")
    assert equal(again, models[part])
    assert torch.equal(answers(again, task), answers(models[part], task))


def test_other_depths_are_another_training() -> None:
    whole = vit(depth=4)
    choices = {shallower(whole, {name: Skip(0)}).choice for name in ("blocks.1", "blocks.2")}
    assert len(choices) == 2, "a checkpoint of other cuts is set aside"
