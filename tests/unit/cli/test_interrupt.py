"""Ctrl-C that a library turned into an error of its own stays Ctrl-C."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgedeploy.cli.watch import Watch
from edgedeploy.errors import BuildError
from edgedeploy.study.account import Account
from edgedeploy.study.events import Event
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from tests import made_up


@pytest.fixture(autouse=True)
def listening() -> Iterator[None]:
    """A suite that was started in the background hands down that Ctrl-C is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    """Calls the handler itself. A signal would be delivered on the alternate stack that pytest's faulthandler set up, which
    is too small once a library has asked the kernel for AMX: the frame does not fit and the process dies."""
    handler = signal.getsignal(signal.SIGINT)
    assert callable(handler)
    handler(signal.SIGINT, None)


def interrupted_import() -> None:
    try:
        press_ctrl_c()
    except KeyboardInterrupt:
        raise ImportError("initialization failed") from None


def test_an_error_made_of_an_interrupt_is_the_interrupt() -> None:
    with pytest.raises(KeyboardInterrupt), Watch():
        interrupted_import()


def test_an_error_without_an_interrupt_is_itself() -> None:
    with pytest.raises(ImportError), Watch():
        raise ImportError("initialization failed")


class Toolchain:
    """A bench whose build fails, because of Ctrl-C or by itself."""

    def __init__(self, interrupted: bool) -> None:
        self.interrupted = interrupted

    def artifact(self, variant: Any) -> None:
        if self.interrupted:
            with pytest.raises(KeyboardInterrupt):
                press_ctrl_c()
        raise BuildError("build the variant", "initialization failed")


def trials(folder: Path, interrupted: bool, watch: Watch) -> Trials:
    bench: Any = Toolchain(interrupted)
    nothing: Any = None
    store = Store(folder)
    return Trials(
        spec=nothing,
        run=nothing,
        provenance="measured",
        bench=bench,
        store=store,
        account=Account(store),
        reference_baseline=made_up.variant(),
        metrics=made_up.TASK_METRICS,
        alive=lambda variant: watch(Event("phase", "", 0, 1)),
    )


def test_no_failure_is_kept_of_an_interrupted_build(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Watch() as watch:
        trials(tmp_path, True, watch).evaluate(made_up.variant())
    assert Store(tmp_path).failures() == ()


def test_the_failure_of_a_build_is_kept(tmp_path: Path) -> None:
    with Watch() as watch:
        trials(tmp_path, False, watch).evaluate(made_up.variant())
    assert [failure.kind for failure in Store(tmp_path).failures()] == ["BuildError"]
