"""The longest chain of layers between inputs and answers, followed by shapes alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgedeploy.compress.chain import Chain

Forward = Callable[[Tensor, Tensor], object]

WEIGHT = torch.empty(3, 3, 1, 1, device="meta")
VECTOR, SQUARE = torch.empty(8, device="meta"), torch.empty(8, 8, device="meta")
CUBE3 = torch.empty(3, 8, 8, device="meta")
CUBE, CUBE8 = torch.empty(3, 8, 2, device="meta"), torch.empty(5, 8, 8, device="meta")


def layer(x: Tensor) -> Tensor:
    return nn.functional.conv2d(x, WEIGHT)


def longest(forward: Forward) -> int | None:
    x, other = (torch.empty(1, 3, 4, 4, device="meta") for _ in range(2))
    with torch.no_grad(), Chain((x, other)) as chain:
        answers = forward(x, other)
    return chain.longest(answers)


def written_into_a_part(x: Tensor, _: Tensor) -> Tensor:
    whole = torch.zeros(1, 6, 4, 4, device="meta")
    whole[:, :3] = layer(x)
    return whole


def one_by_one(x: Tensor, _: Tensor) -> Tensor:
    x = layer(x)
    for _ in range(40):  # memory that is given back may be the next tensor's
        layer(torch.zeros(1, 3, 4, 4, device="meta"))
    return x


@pytest.mark.parametrize(
    ("forward", "expected"),
    [
        pytest.param(lambda x, y: layer(layer(x).relu()) + layer(y), 2, id="the longer of two branches"),
        pytest.param(lambda x, y: (layer(layer(layer(x))), x)[1], 0, id="a branch that leads nowhere"),
        pytest.param(lambda x, y: layer(torch.zeros_like(layer(x))), None, id="an answer to a shape alone"),
        pytest.param(lambda x, y: layer(layer(x).mul(0.0)) + y, 0, id="a branch that is multiplied by 0"),
        pytest.param(lambda x, y: layer(x).mul(0.5), 1, id="a branch that is multiplied by another number"),
        pytest.param(lambda x, y: {"a": layer(x), "b": [y]}, 1, id="several answers"),
        pytest.param(lambda x, y: layer(x).permute(0, 2, 3, 1).reshape(-1, 3) @ WEIGHT[:, :, 0, 0], 2, id="a product"),
        pytest.param(written_into_a_part, 1, id="what is written into a part of the answer"),
        pytest.param(one_by_one, 1, id="layers of constants"),
    ],
)
def test_the_longest_chain(forward: Forward, expected: int | None) -> None:
    assert longest(forward) == expected


@pytest.mark.parametrize(
    ("forward", "macs", "layers"),
    [
        pytest.param(lambda x: VECTOR[:2] @ x, 16, 1, id="a vector by a matrix"),
        pytest.param(lambda x: (x @ SQUARE) @ VECTOR, 2 * 64 + 2 * 8, 2, id="a matrix by a vector, last"),
        pytest.param(lambda x: torch.dot(x[0], VECTOR), 8, 1, id="two vectors"),
        pytest.param(lambda x: torch.addmv(VECTOR, SQUARE, x[0]), 64, 1, id="a vector, and another added"),
        pytest.param(lambda x: torch.addbmm(SQUARE, CUBE, x.expand(3, 2, 8)), 3 * 8 * 2 * 8, 1, id="a sum of products"),
        pytest.param(lambda x: torch.zeros_like(x).addmm_(x, SQUARE), 2 * 64, 1, id="a product added in place"),
        pytest.param(
            lambda x: torch.conv_tbc(x[None], CUBE3, VECTOR, 1), 2 * 8 * 3 * 8, 1, id="a convolution over time"
        ),
        pytest.param(lambda x: nn.functional.bilinear(x, x, CUBE8), 2 * 5 * 64, 1, id="bilinear"),
        pytest.param(lambda x: x @ (SQUARE @ SQUARE), 2 * 64, 1, id="weights that are multiplied first"),
        pytest.param(lambda x: x + x.new_zeros(2, 8) @ SQUARE, 2 * 64, 0, id="a first state of zeros"),
        pytest.param(torch.inference_mode()(lambda x: nn.functional.linear(x, SQUARE)), 2 * 64, 1, id="inference mode"),
    ],
)
def test_multiply_accumulates_of_every_product_are_counted(
    forward: Callable[[Tensor], Tensor], macs: int, layers: int
) -> None:
    x = torch.empty(2, 8, device="meta")
    with torch.no_grad(), Chain(x) as chain:
        answer = forward(x)
    assert (chain.macs, chain.longest(answer)) == (macs, layers)


def test_a_tensor_without_a_memory_of_its_own_is_followed() -> None:
    x = torch.rand(4, 3)
    with torch.no_grad(), Chain(x) as chain:
        answer = torch.mm(x.to_sparse(), torch.rand(3, 2)).relu()
    assert chain.longest(answer) == 1
