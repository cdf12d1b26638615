"""Builds on other hosts: workers of a Dask cluster that have no board run a target's build.

The reference and the calibration inputs are sent to such a worker as bytes with their hashes. The artifact's files are
sent back and stored once, after their hashes were checked. If a worker is killed during a build, Dask gives the build
to another.

The coordinator builds by itself when no such worker is left, and when the worker's toolchain is missing or of another
version: all artifacts of a study come from one version.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import BuildError, TargetUnavailable
from edgedeploy.interfaces.target import BuildRequest, FitsBoard, Target
from edgedeploy.lab.wire import pack_request, unpack_request, write_files
from edgedeploy.records.artifact import Artifact
from edgedeploy.targets.registry import find_targets

LOOK_S: Final = 2.0
"""How often the coordinator looks whether there is still a worker that could build."""


def build_elsewhere(
    client: Any, workers: Callable[[], Sequence[str]], target: Target, request: BuildRequest, folder: Path
) -> Artifact:
    """``target.build`` on one of ``workers()``, the addresses of workers without a board; in this process without any.

    Raises what ``Target.build`` raises, and ``BuildError`` for a build that kills one worker after the other.
    """
    from distributed import KilledWorker

    able = workers()
    if not able or isinstance(target, FitsBoard):  # a worker has the target that fits no board
        return target.build(request, folder)
    future = client.submit(
        build_on_worker,
        target.name,
        dict(target.probe().versions),
        pack_request(request),
        pure=False,
        workers=list(able),
        allow_other_workers=False,
    )
    try:
        answer = _wait(future, lambda: bool(set(able) & set(workers())))
    except TargetUnavailable:
        answer = None
    except KilledWorker as exc:
        asked = f"build {target.name} {request.precision} on the cluster"
        raise BuildError(asked, f"it killed its workers again and again: {exc}", "Give them more memory") from exc
    finally:
        future.cancel()
    if answer is None:
        return target.build(request, folder)
    artifact = Artifact.from_json(answer["artifact"])
    write_files({file.name: (file.sha256, answer["files"][file.name]) for file in artifact.files}, folder)
    return artifact


def _wait(future: Any, possible: Callable[[], bool]) -> Any:
    """The future's result; None when the scheduler, or every worker that could compute it, is gone."""
    while True:
        try:
            return future.result(timeout=LOOK_S)
        except CancelledError:
            return None
        except TimeoutError:
            if future.done():  # the build itself timed out, or its answer has just arrived
                return future.result()
            if not possible():
                return None


def build_on_worker(name: str, versions: Mapping[str, str], packed: Mapping[str, Any]) -> dict[str, Any]:
    """On a worker. Raises what ``Target.build`` raises, ``TargetUnavailable`` for other versions than the coordinator's."""
    found = [plugin for plugin in find_targets() if plugin.name == name]
    if not found:
        raise TargetUnavailable(f"target {name!r} on a worker", "its plugin is not installed", "Install it there")
    target = found[0].load()
    readiness = target.probe()
    if not readiness.ready or dict(readiness.versions) != dict(versions):
        raise TargetUnavailable(f"target {name!r} on a worker", readiness.found, readiness.remedy)
    with tempfile.TemporaryDirectory(prefix="edgedeploy-build-") as folder:
        given, made = Path(folder, "given"), Path(folder, "made")
        given.mkdir()
        made.mkdir()
        artifact = target.build(unpack_request(packed, given), made)
        return {
            "artifact": artifact.as_json(),
            "files": {file.name: (made / file.name).read_bytes() for file in artifact.files},
        }
