"""Tensors are held in groups of bounded memory."""

from __future__ import annotations

from edgedeploy.reference.passes import passes


def test_memory_is_bounded_by_the_pass() -> None:
    sizes = {f"t{index}": 40 for index in range(10)} | {"large": 1000, "last": 1}
    groups = list(passes(sizes, 100))
    assert [name for group in groups for name in group] == list(sizes)
    assert all(sum(sizes[name] for name in group) <= 100 or len(group) == 1 for group in groups)
