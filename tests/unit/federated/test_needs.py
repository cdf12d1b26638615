"""Without Flower, calibration and rounds across sites say which extra brings it."""

from __future__ import annotations

import importlib
import sys

import pytest

from edgedeploy.errors import TargetUnavailable
from edgedeploy.federated.calibration import calibration_app
from edgedeploy.federated.needs import flower
from edgedeploy.federated.recovery import recovery_app

pytestmark = pytest.mark.beside


@pytest.fixture
def without_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "flwr"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "flwr", None)
    monkeypatch.delitem(sys.modules, "edgedeploy.federated.grid", raising=False)


@pytest.mark.usefixtures("without_flower")
def test_what_needs_flower_names_the_extra_that_brings_it() -> None:
    with pytest.raises(TargetUnavailable, match=r"pip install 'edgedeploy\[federated\]'"):
        importlib.import_module("edgedeploy.federated.grid")
    with pytest.raises(TargetUnavailable, match=r"edgedeploy\[federated\]"):
        calibration_app(lambda: pytest.fail("nothing is observed"))
    with pytest.raises(TargetUnavailable, match=r"edgedeploy\[federated\]"):
        recovery_app(None, lambda: None, arch={}, cases=1)  # type: ignore[arg-type]


def test_another_package_that_is_missing_is_not_called_flower() -> None:
    with pytest.raises(ModuleNotFoundError, match="torrch"), flower("a sum"):
        importlib.import_module("torrch")
