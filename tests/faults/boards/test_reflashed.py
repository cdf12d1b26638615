"""A study whose board was installed anew between two runs, and failures that are tried again when somebody asks for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from board_kit import squares_study
from fault_kit import need_program, need_root

import edgedeploy
from edgedeploy import RunOptions
from edgedeploy.errors import SpecError
from edgedeploy.records.measurement import Failure
from edgedeploy.study.events import Event
from edgedeploy.study.retry import SUPERSEDED
from edgedeploy.study.store import Store, utc_now

pytestmark = pytest.mark.beside


def installed(folder: Path) -> tuple[str, Path]:
    """A board's Python, and the file that its machine id is read from: a private mount puts it where the system has it."""
    need_root("a mount over the machine id")
    unshare = need_program("unshare", "util-linux")
    if not Path("/etc/machine-id").exists():
        pytest.skip("this machine has no /etc/machine-id")
    identity = folder / "machine-id"
    identity.write_text(f"{uuid.uuid4().hex}\n")
    python = folder / "python"
    mount = f'mount --bind {identity} /etc/machine-id && exec "$@"'
    python.write_text(f"#!/bin/sh\nexec {unshare} -m sh -c '{mount}' sh {sys.executable} \"$@\"\n")
    python.chmod(0o755)
    if subprocess.run([str(python), "-c", "pass"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not allow a private mount over /etc/machine-id")
    return str(python), identity


def contents(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.fault(48)
def test_board_that_was_installed_anew_is_refused_and_nothing_is_filed(tmp_path: Path) -> None:
    python, identity = installed(tmp_path)
    here = f'name = "here"\nkind = "local"\npython = "{python}"\nroot = "{tmp_path / "root"}"'
    changes = (
        ('name = "here"\nkind = "local"', here),
        ("count = 32", "count = 8"),
        (', "openvino"]', "]"),
        ("width = [1.0, 0.5]\nkernel = [3, 5]\n", ""),
    )
    study = edgedeploy.load_study(squares_study(tmp_path, *changes))
    out = tmp_path / "out"
    study.run(RunOptions(out=out, board="here", trials=1, confirm=False))
    store = Store(out)
    (measured,) = store.measurements()
    before, old = contents(out), identity.read_text()

    identity.write_text(f"{uuid.uuid4().hex}\n")
    again = RunOptions(out=out, board="here", trials=2, confirm=False, resume=True)
    with pytest.raises(SpecError, match=r"installed anew.*identity '.*old system back, or start a new study"):
        study.run(again)
    assert contents(out) == before

    kept = (out / "measurements" / f"{measured.digest}.json").rename(tmp_path / "aside.json")
    with pytest.raises(SpecError, match="installed anew"):  # also where nothing is measured yet
        study.run(again)
    kept.rename(out / "measurements" / f"{measured.digest}.json")

    identity.write_text(old)
    said = retried_after_a_failure(study, store, measured.variant, again)
    assert "1 stored failure is set aside (failures/superseded), and tried again" in said
    assert store.failures() == ()
    assert {item.digest for item in store.measurements()} >= {measured.digest}
    assert len(list((out / "failures" / SUPERSEDED).glob(f"{measured.digest}-1.json"))) == 1


def retried_after_a_failure(study: edgedeploy.Study, store: Store, variant: object, options: RunOptions) -> list[str]:
    """As if the variant had failed and the failure had been stored: it stays so until it is to be tried again."""
    from dataclasses import replace

    digest = variant.digest  # type: ignore[attr-defined]
    (store.root / "measurements" / f"{digest}.json").unlink()
    store.keep_failure(Failure(variant, "DidNotRun", "measure", "killed: candidate", utc_now()))  # type: ignore[arg-type]
    study.run(replace(options, trials=1))
    assert [failure.variant.digest for failure in store.failures()] == [digest]
    said: list[str] = []

    def observer(event: Event) -> None:
        said.append(event.text)

    study.run(replace(options, retry_failed=True), observer=observer)
    return said


def test_trying_again_goes_with_going_on() -> None:
    with pytest.raises(SpecError, match="it goes with resume"):
        RunOptions(retry_failed=True)
