"""A default stands in one place: who is told the value has none of its own that could differ."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import made_up
import numpy as np
import pytest

from edgedeploy.boards.agent.session import BoardOptions
from edgedeploy.boards.ssh.config import SshTarget
from edgedeploy.compress.qat.fakequant import ActivationQuantizer
from edgedeploy.compress.qat.graph import place_quantizers
from edgedeploy.evidence.front import build_front
from edgedeploy.evidence.statistics import StabilityLimits, stability
from edgedeploy.records.artifact import TensorSpec, random_feed
from edgedeploy.runtime.agent.commands import main
from edgedeploy.runtime.agent.lease import hold
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.study.limits import stability_limits


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (StabilityLimits, [field.name for field in dataclasses.fields(StabilityLimits)]),
        (stability, ["limits"]),
        (build_front, ["margin"]),
        (place_quantizers, ["percentile", "momentum"]),
        (ActivationQuantizer.__init__, ["percentile", "momentum"]),
        (hold, ["heartbeat_limit_s"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_is_told_has_no_default(told: Callable[..., Any], names: list[str]) -> None:
    parameters = inspect.signature(told).parameters
    assert {name: parameters[name].default for name in names} == dict.fromkeys(names, inspect.Parameter.empty)


def test_the_agent_is_told_how_long_it_waits_for_its_holder(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["lease", "--owner", "test"])
    assert "--heartbeat-limit" in capfd.readouterr().err


def test_the_drift_that_a_run_may_have_is_the_study_files() -> None:
    """Between what the study file allows by itself and what the function once did."""
    drifting = made_up.side(6.0, noise=0.001, drift=0.49)
    assert stability(drifting, {}, stability_limits(MeasureTable())) is None
    said = stability(drifting, {}, stability_limits(MeasureTable(max_drift=0.2)))
    assert said is not None
    assert "at most 20 % is allowed" in said


def test_every_limit_of_the_study_file_arrives() -> None:
    values = {field.name: 0.5 + place for place, field in enumerate(dataclasses.fields(StabilityLimits))}
    assert dataclasses.asdict(stability_limits(MeasureTable(**values))) == values


def test_a_board_of_which_nothing_is_said_is_the_same_everywhere() -> None:
    table = BoardTable(name="cart", kind="ssh", host="cart-3.lab")
    assert BoardOptions().root == table.root
    assert SshTarget(host="cart-3.lab").port == table.port


def test_random_inputs_are_seeded_and_such_as_most_models_take() -> None:
    specs = tuple(
        TensorSpec(name, dtype, shape)
        for name, dtype, shape in (
            ("image", "float32", (1, 3, 32, 32)),
            ("half", "float16", (1, 3)),
            ("pixels", "uint8", (1, 3, 32, 32)),
            ("tokens", "int64", (1, 12)),
            ("lengths", "int32", ()),
            ("mask", "bool", (1, 12)),
        )
    )
    found = random_feed(specs, 3)
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in specs
    }
    assert 0 < found["image"].min() < 0.01
    assert 0.99 < found["image"].max() <= 1
    assert np.isfinite(np.log(found["half"])).all()
    assert (found["pixels"].min(), found["pixels"].max()) == (0, 255)
    assert (found["tokens"] == 1).all()
    assert found["lengths"] == 1
    assert set(found["mask"].ravel().tolist()) == {True, False}
    np.testing.assert_array_equal(found["image"], random_feed(specs, 3)["image"])
    assert not np.array_equal(found["image"], random_feed(specs, 4)["image"])
