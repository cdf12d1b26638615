"""What `edgedeploy measure` says of a run whose conditions drifted."""

from __future__ import annotations

import made_up

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
