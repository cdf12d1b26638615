"""The emulated x86-64 processor in a study file, and what its probe will read."""

from __future__ import annotations

import sys

import pytest

from edgedeploy.boards.creating import create
from edgedeploy.boards.emulated.emulator import EmulatorBoard
from edgedeploy.boards.open import open_board
from edgedeploy.boards.x86 import haswell
from edgedeploy.boards.x86.board import EmulatedX86Board
from edgedeploy.errors import SpecError
from edgedeploy.interfaces.ability import has_native_bfloat16, sums_int8_exactly
from edgedeploy.runtime.sensors.probe import X86_FLAGS, cpu_flags, cpu_model
from edgedeploy.spec.boards import BoardTable, emulated_board


def test_one_word_names_the_machine() -> None:
    table = emulated_board("emulated:x86-avx2")
    assert table == BoardTable(name="emulated:x86-avx2", kind="emulated", machine="x86-avx2")
    board = open_board(table.model_dump())
    assert isinstance(board, EmulatedX86Board)
    assert (board.name, board.provenance, board.clock) == ("emulated:x86-avx2", "emulated", "none")
    assert board.python == sys.executable


def test_another_interpreter_of_this_host_may_be_named() -> None:
    board = open_board({"name": "old", "kind": "emulated", "machine": "x86-avx2", "python": "/opt/old/bin/python"})
    assert isinstance(board, EmulatorBoard)
    assert board.python == "/opt/old/bin/python"


@pytest.mark.parametrize("word", ["emulated:x86-avx", "emulated:avx2"])
def test_a_word_that_nobody_knows_names_the_nearest(word: str) -> None:
    with pytest.raises(SpecError, match="emulated:x86-avx2"):
        emulated_board(word)


def test_a_machine_that_nobody_knows_is_not_created() -> None:
    with pytest.raises(SpecError, match="Did you mean 'x86-avx2'"):
        create("x86-avx512", print)


def test_every_core_is_a_haswell() -> None:
    text = haswell.cpuinfo(3)
    flags = cpu_flags(text)
    assert text.count("processor\t:") == 3
    assert flags.intersection(X86_FLAGS) == {"avx", "avx2", "f16c", "fma", "sse4_1", "ssse3"}
    assert "emulated" in cpu_model(text)
    assert not sums_int8_exactly("x86_64", flags)
    assert not has_native_bfloat16(flags)
