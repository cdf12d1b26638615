"""The record of a study that was begun from another one is read within limits."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import made_up
import made_up_search
import pytest
from made_up_study import new_store

from edgedeploy.errors import DataError
from edgedeploy.study.front import stored_spec
from edgedeploy.study.warmstart import RECORD, warm_start


@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e101", "1" + "0" * 200 + ".0"])
def test_values_that_no_metric_has_are_damage_and_overflow_nothing(value: str, tmp_path: Path) -> None:
    """Their differences are no numbers: it was a warning of numpy's on the screen, and gains of NaN."""
    store = new_store(tmp_path / "study", [made_up.variant()])
    spec = stored_spec(store)
    names = [goal.metric for goal in spec.objectives]
    item = {"variant": made_up.variant(width=0.5).as_json(), "values": [0.5] * len(names), "same_file": False}
    record = {"objectives": names, "variants": [item, {**item, "values": [0.25] * len(names)}]}
    text = json.dumps(record)

    def begun() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return warm_start(store, spec, made_up_search.SPACE, ["maximize"] * len(names), lambda variant: {})

    (store.root / RECORD).write_text(text)
    assert begun() is not None
    (store.root / RECORD).write_text(text.replace("0.25", value, 1))
    with pytest.raises(DataError, match=r"is too large: at most 1e\+100 is read"):
        begun()
