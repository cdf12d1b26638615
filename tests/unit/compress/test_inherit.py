"""Inheritance by name and shape."""

from __future__ import annotations

import torch
from torch import nn

from edgedeploy.compress.inherit import inherit


def net(up: str, seed: int, width: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    layers = {"stem": nn.Conv2d(1, width, 3), "norm": nn.BatchNorm2d(width), "head": nn.Conv2d(8, 2, 1)}
    if up == "transposed":
        layers["grow"] = nn.ConvTranspose2d(8, 8, 2, stride=2)
    else:
        layers["mix"] = nn.Conv2d(8, 8, 1)
    return nn.ModuleDict(layers)


def test_equal_architectures_become_equal() -> None:
    teacher = net("transposed", 1)
    with torch.no_grad():
        teacher["norm"].running_mean += 3  # type: ignore[index, operator]
    student = net("transposed", 2)
    report = inherit(student, teacher)
    assert all(torch.equal(tensor, teacher.state_dict()[name]) for name, tensor in student.state_dict().items())
    assert report.complete
    assert report.elements == report.total


def test_replaced_layers_stay_fresh() -> None:
    student, twin = net("resize", 2), net("resize", 2)
    report = inherit(student, net("transposed", 1))
    assert report.fresh == ("mix.weight", "mix.bias")
    assert report.unused == ("grow.weight", "grow.bias")
    assert "norm.running_var" in report.inherited
    assert not report.complete
    assert torch.equal(student["mix"].weight, twin["mix"].weight)  # type: ignore[index, arg-type]
    assert not torch.equal(student["stem"].weight, twin["stem"].weight)  # type: ignore[index, arg-type]
    assert report.total - report.elements == 8 * 8 + 8


def test_other_shapes_are_not_inherited() -> None:
    report = inherit(net("resize", 2, width=4), net("resize", 1))
    assert "stem.weight" in report.fresh
    assert "stem.weight" in report.unused
    assert "head.weight" in report.inherited


def test_the_teacher_is_shared_with_nobody() -> None:
    """Training the student afterwards must not change the baseline."""
    teacher, student = net("resize", 1), net("resize", 2)
    inherit(student, teacher)
    before = teacher.state_dict()["stem.weight"].clone()
    with torch.no_grad():
        student["stem"].weight.zero_()  # type: ignore[index, union-attr, operator]
    assert torch.equal(teacher.state_dict()["stem.weight"], before)
