"""Why a variant was trained further: kept in the folder, in the order of the proposals, whoever proposed it."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_kit import read

from edgedeploy.errors import DataError
from edgedeploy.records.variant import Variant
from edgedeploy.search.beliefs import Belief
from edgedeploy.search.ladder import WHAT_TRAINING_GIVES
from edgedeploy.study.layout import PROMOTED
from edgedeploy.study.left import keep_promotion, kept_promotions
from edgedeploy.study.store import Store

VARIANT = Variant("onnxruntime", "int8", 0.5, (), 1, recovery_epochs=1)


def test_each_reason_is_kept_once(tmp_path: Path) -> None:
    spec, store = read(""), Store(tmp_path)
    count = len(spec.objectives)
    values = tuple(0.8 + number / 10 for number in range(count)), tuple(0.9 + number / 10 for number in range(count))
    assert kept_promotions(store) == ()
    first = keep_promotion(store, spec, VARIANT, Belief(*values, 0.25, 12.0))
    assert first.endswith("at best 0.9: 25.00% of the front's volume, for about 12 s")
    higher = Variant("onnxruntime", "int8", 0.5, (), 1, recovery_epochs=4)
    second = keep_promotion(store, spec, higher, Belief(*values, None))
    assert "4 epochs, because" in second and second.endswith("at best 0.9: and nothing is on the front yet")
    exploring = Belief(*values, 0.0003, 12.0, explores=WHAT_TRAINING_GIVES)
    told = keep_promotion(store, spec, VARIANT, exploring)
    assert ": 1 epoch, to tell what training gives to a network of this size: " in told and "volume" not in told
    again = keep_promotion(store, spec, VARIANT, None)
    assert again.endswith("1 epoch, drawn by co-design without a prediction")
    assert [f"{item.label}: {item.reason}" for item in kept_promotions(store)] == [second, again]


def test_a_damaged_file_is_told_by_a_report_and_begun_anew_by_a_search(tmp_path: Path) -> None:
    spec, store = read(""), Store(tmp_path)
    (tmp_path / PROMOTED).write_text("{")
    with pytest.raises(DataError, match=PROMOTED):
        kept_promotions(store)
    keep_promotion(store, spec, VARIANT, None)
    assert len(kept_promotions(store)) == 1
