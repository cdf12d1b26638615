"""`scripts/bench norms`: changes are those of the same network, and what was measured is not trained again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from benchmarks import norms
from benchmarks.norms import AS_TRAINED, WAYS, Row, rows, table, ways

SAME = dict.fromkeys(WAYS, (0.6, 0.5))
FIRST = Row(0.5, 4, 0, {**SAME, "1 epoch": (0.63, 0.62)})
SECOND = Row(0.5, 4, 1, {**dict.fromkeys(WAYS, (0.7, 0.7)), "1 epoch": (0.69, 0.68)})


def test_a_change_is_that_of_the_same_network() -> None:
    lines = table([FIRST, SECOND]).splitlines()[2:]
    trained, few, anew, many = lines[: len(WAYS)]
    assert trained == "| 0.5 | 4 | 2 | as trained | 0.6500 | 0.6000 |  |  |  | +0.0500 +- 0.0500 | +0.1000 |"
    changed = "+0.0100 +- 0.0200 | +0.0500 +- 0.0700 | -0.0200"
    assert anew == f"| 0.5 | 4 | 2 | 1 epoch | 0.6600 | 0.6500 | {changed} | +0.0100 +- 0.0000 | +0.0100 |"
    assert "| 16 batches |" in few and "| 4 epochs |" in many
    assert lines[len(WAYS) :] == [line.replace("| 0.5 | 4 |", "| all | all |") for line in lines[: len(WAYS)]]


def test_an_epoch_is_as_many_batches_as_a_training_sees() -> None:
    task = SimpleNamespace(cases=lambda split: range(9), recovery_recipe=SimpleNamespace(batch_size=4))
    assert ways(SimpleNamespace(task=task)) == {AS_TRAINED: 0, "16 batches": 16, "1 epoch": 3, "4 epochs": 12}  # type: ignore[arg-type]


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[tuple[Any, ...]] = []

    def measured(lab: Any, width: float, seed: int) -> dict[str, tuple[float, float]]:
        trained.append((lab.recovered, width, seed))
        return dict(FIRST.scores)

    monkeypatch.setattr(norms, "measured", measured)
    labs: Any = [SimpleNamespace(recovered=4), SimpleNamespace(recovered=12)]
    begun = rows(labs, [0.5], 2, tmp_path / "norms.json")
    assert [next(begun), next(begun)] == [FIRST, Row(0.5, 12, 0, FIRST.scores)]
    assert trained == [(4, 0.5, 0), (12, 0.5, 0)]
    trained.clear()
    assert len(list(rows(labs, [0.5], 2, tmp_path / "norms.json"))) == 4
    assert trained == [(4, 0.5, 1), (12, 0.5, 1)]
