"""What `edgedeploy measure` says of a run whose conditions drifted."""

from __future__ import annotations

import made_up
import pytest

from edgedeploy.evidence.bootstrap import Estimate
from edgedeploy.evidence.verdict import Verdict
from edgedeploy.report.oneshot import measured_table
from edgedeploy.study.oneshot.measure import Measured


def said(cause: str | None) -> str:
    found = made_up.measurement(cause=cause, parity={})
    return " ".join(measured_table(Measured(found, "model.onnx", {}, None, None, "6 cases", ())).notes)


def test_an_invalid_run_names_the_option_whose_file_sets_the_limits() -> None:
    cause = "other processes used 1.90 of a core during the run (max_background_cores in [measure])"
    assert f"INVALID: {cause}. Run it again when the board is idle, or add `--study FILE`" in said(cause)
    assert "[measure] table" in said(cause)
    assert "--study" not in said(None)


@pytest.mark.parametrize(("cause", "title"), [(None, "emulated"), ("it was hot", "emulated in an INVALID run")])
def test_an_invalid_run_is_called_so_above_its_numbers_and_concludes_nothing(cause: str | None, title: str) -> None:
    run = made_up.measurement(cause=cause, parity={})
    verdict = Verdict("faster", 0.5, 0.4, 0.6, 12)
    shown = measured_table(Measured(run, "model.onnx", {}, Estimate(1e6, None, None), verdict, "6 cases", ()))
    assert shown.title.endswith(f", {title}")
    assert ("INVALID: it was hot" in shown.notes[0]) == (cause is not None)
    assert (verdict.word in " ".join(shown.notes)) == (cause is None)
