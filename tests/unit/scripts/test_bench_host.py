"""A benchmark's figures stand beside the instructions that its processor has."""

from __future__ import annotations

import pytest
from benchmarks.shared import host


def test_a_machine_is_told_with_what_decides_its_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "isa_here", lambda: ["sse2", "avx2", "avx512_vnni"])
    assert host.machine().endswith("(avx2, avx512_vnni)")
    monkeypatch.setattr(host, "isa_here", lambda: ["sse2"])
    assert host.machine().endswith("(none that matter here)")


def test_the_load_stands_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host.os, "getloadavg", lambda: (3.25, 9.0, 9.0))
    assert host.circumstances() == f"{host.machine()}, load 3.2"
