"""Quantizers in whole networks: folded batch norms, where they stand, what they share."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_networks import NETWORKS, folded, images, network, quantized
from torch import nn

from edgedeploy.compress.qat import graph as quantgraph
from edgedeploy.compress.qat.fakequant import ActivationQuantizer, WeightQuantizer
from edgedeploy.errors import Unsupported
from edgedeploy.reference.weights import numbers

each_network = pytest.mark.parametrize("name", NETWORKS)


def fold(model: nn.Module, side: int = 16) -> torch.fx.GraphModule:
    return quantgraph.fold_batch_norms(quantgraph.trace(model, [torch.zeros(2, 1, side, side)]))


def batch_norms(model: torch.fx.GraphModule) -> int:
    return sum(quantgraph.kind(node) in quantgraph.BATCH_NORMS for node in model.graph.nodes)


def quantized_names(model: torch.fx.GraphModule) -> list[list[str]]:
    return [[quantgraph.kind(node) or node.op for node in group] for group in quantgraph.quantized_groups(model.graph)]


@each_network
def test_folding_keeps_the_function_for_any_batch(name: str) -> None:
    model, graph = network(name), folded(name)
    assert batch_norms(graph) == 0
    for count in (1, 5):
        inputs = images(count, seed=3)
        with torch.no_grad():
            torch.testing.assert_close(graph(inputs), model(inputs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_fold_too(groups: int) -> None:
    torch.manual_seed(0)
    transposed = nn.ConvTranspose2d(8, 12, 3, stride=2, groups=groups)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), transposed, nn.BatchNorm2d(12))
    for seed in range(5):
        model(3 * images(8, seed) + 1)
    model.eval()
    graph = fold(model)
    assert batch_norms(graph) == 0
    torch.testing.assert_close(graph(images(3)), model(images(3)), rtol=1e-5, atol=1e-5)


def test_a_batch_norm_that_cannot_be_folded_stays() -> None:
    """Its convolution's output is read by somebody else as well."""

    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            values = self.layer(image)
            return values * self.norm(values)

    model = Fork()
    model(images(8))
    model.eval()
    graph = fold(model)
    assert batch_norms(graph) == 1
    torch.testing.assert_close(graph(images(3)), model(images(3)), rtol=1e-5, atol=1e-5)


def test_a_concatenation_has_one_scale_with_all_that_goes_in() -> None:
    groups = quantized_names(folded("unet"))
    shared = [group for group in groups if "cat" in group]
    assert [sorted(group) for group in shared] == [["cat", "conv_transpose2d", "max_pool2d", "relu"]] * 2


def test_both_sides_of_a_residual_and_its_sum_are_quantized() -> None:
    groups = quantized_names(folded("mobilenet"))
    assert sum("add" in group for group in groups) == 2
    assert all(len(group) == 1 for group in groups if "add" in group)
    relu_after = quantized_names(folded("resnet"))
    assert not any("add" in group for group in relu_after), "the ReLU that follows stands for it"


def test_the_residual_stream_of_a_transformer_stays_float() -> None:
    assert not any("add" in group for group in quantized_names(folded("transformer")))


@each_network
def test_every_layer_gets_int8_weights_and_an_int8_input(name: str) -> None:
    model = quantgraph.place_quantizers(folded(name), "learned", percentile=100.0, momentum=0.1)
    layers = [node for node in model.graph.nodes if quantgraph.kind(node) in quantgraph.WEIGHTED]
    expected = sum(isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear) for m in network(name).modules())
    assert len(layers) >= expected  # attention's projection of its inputs is a parameter, not a layer
    for layer in layers:
        assert str(layer.args[0].target).startswith("activation_quantizer")
        assert str(layer.args[1].target).startswith("weight_quantizer")


@each_network
def test_everything_learns(name: str) -> None:
    """Weights, folded biases and scales get a gradient, in the memory layout that training uses."""
    model = quantgraph.place_quantizers(folded(name), "learned", percentile=100.0, momentum=0.1).train()
    with torch.no_grad():
        model(images(8))
    for quantizer in quantgraph.quantizers(model):
        quantizer.stop_observing()
    model.to(memory_format=torch.channels_last)
    model(images(8).contiguous(memory_format=torch.channels_last)).square().sum().backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@each_network
def test_a_frozen_model_computes_what_was_trained(name: str) -> None:
    model = quantgraph.place_quantizers(folded(name), "observed", percentile=100.0, momentum=0.1)
    with torch.no_grad():
        model(images(8))
        for quantizer in quantgraph.quantizers(model):
            quantizer.stop_observing()
        frozen = quantgraph.freeze(model)
        assert torch.equal(frozen(images(4, seed=5)), model.eval()(images(4, seed=5)))
    assert not any(isinstance(module, ActivationQuantizer) for module in frozen.modules())
    assert all((scale > 0).all() for scale in quantgraph.scales(frozen).values())


@each_network
def test_int8_is_near_float_where_ranges_fit(name: str) -> None:
    inputs = images(8, seed=2)
    with torch.no_grad():
        wanted, found = network(name)(inputs), quantized(name)(inputs)
    assert float((found - wanted).norm() / wanted.norm()) < 0.05


def test_what_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image) if float(image.sum()) > 0 else -self.layer(image)

    with pytest.raises(Unsupported, match="training = \\['ptq'\\]"):
        quantgraph.trace(Moody(), [images(2)])


def test_layers_kept_in_float_ask_for_no_quantizers() -> None:
    graph = folded("resnet")
    layers = [node for node in graph.graph.nodes if quantgraph.kind(node) in quantgraph.WEIGHTED]
    all_groups = len(quantgraph.quantized_groups(graph.graph))
    last = numbers(graph.get_parameter(str(layers[-1].args[1].target)).detach().numpy())
    kept = quantgraph.layers_with(graph, {"the last": last})
    assert kept == {layers[-1]}
    model = quantgraph.place_quantizers(graph, "learned", percentile=100.0, momentum=0.1, kept=kept)
    weights = [module for module in model.modules() if isinstance(module, WeightQuantizer)]
    assert len(weights) == len(layers) - 1
    assert layers[-1].args[1].op == "get_attr", "no quantizer stands before its weights"
    assert len(list(quantgraph.quantizers(model))) < all_groups, "nor before its input, which nobody else wants"


def test_layers_that_are_not_there_or_are_all_of_them() -> None:
    graph = folded("resnet")
    with pytest.raises(
        Unsupported, match=r"layer '/stem' in float32 .*no convolution or linear layer with its weights"
    ):
        quantgraph.layers_with(graph, {"/stem": np.arange(9.0)})
    everything = {node for node in graph.graph.nodes if quantgraph.kind(node) in quantgraph.WEIGHTED}
    with pytest.raises(Unsupported, match="the plan keeps every layer"):
        quantgraph.place_quantizers(graph, "learned", percentile=100.0, momentum=0.1, kept=everything)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(Unsupported, match="no convolution or linear layer"):
        quantgraph.place_quantizers(fold(nn.Sequential(nn.ReLU())), "learned", percentile=100.0, momentum=0.1)
