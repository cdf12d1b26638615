"""Layers that oneDNN computes wrongly in ``channels_last`` train in the default layout; all others in ``channels_last``."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from edgedeploy.compress.layout import bears_channels_last, laid_out
from edgedeploy.compress.training import fit
from edgedeploy.interfaces.task import TrainRecipe


class Halves:
    """Which of two classes an image of 4 channels is."""

    baseline_recipe = recovery_recipe = TrainRecipe(epochs=3, batch_size=7, learning_rate=0.01)

    def batches(self, seed: int, batch_size: int, **arch: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(60):
            yield torch.randn(batch_size, 4, 8, 8, generator=generator), torch.arange(batch_size) % 2

    def loss(self, outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs.mean((2, 3)), target)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(4, 8, 1, stride=2, bias=False), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))


def train() -> None:
    fit(network(), Halves(), Halves.recovery_recipe, arch={})


def test_only_narrow_layers_that_skip_pixels_are_spared() -> None:
    assert not bears_channels_last(nn.Conv2d(7, 8, 1, stride=2))
    for sound in (
        nn.Conv2d(8, 8, 1, stride=2),
        nn.Conv2d(4, 8, 1),
        nn.Conv2d(4, 8, 3, stride=2),
        nn.Conv3d(4, 8, 1, 2),
    ):
        assert bears_channels_last(sound)


@pytest.mark.parametrize("side", [8, 1])
def test_a_spared_layer_gets_the_default_layout_and_answers_the_same(side: int) -> None:
    model = network()
    images = torch.randn(7, 4, side, side).contiguous(memory_format=torch.channels_last)
    wanted, seen = model(images), []
    with laid_out(model):
        model[0].register_forward_hook(lambda layer, given, _: seen.extend([given[0].stride(), layer.weight.stride()]))
        found = model(images)
        assert model[2].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted)
    assert seen == [(4 * side * side, side * side, side, 1), (4, 1, 1, 1)]
    assert not model[0]._forward_pre_hooks


@pytest.mark.skipif(platform.machine() != "x86_64", reason="AVX2 is x86-64's")
def test_such_a_network_trains_with_avx2_alone() -> None:
    """In a process of its own, which the fault ended; the C library looks at what lies around each piece of memory."""
    checks = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import test_layout; test_layout.train()"
    environment = {**os.environ, **checks, **limits, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
