"""Apps of this package under Flower's own SuperLink and SuperNodes: processes of this host over the loopback address.

Every message to a site starts a process of Flower's, and Flower forgets the message's claim where that process has not
reported within 30 s: the site then never answers. A host too busy for that is told, and shows nothing of these apps.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import sites_kit

pytest.importorskip("flwr", reason="needs edgedeploy[federated]")
pytestmark = [pytest.mark.waiting, pytest.mark.timeout(600)]

APP = Path(__file__).with_name("flower_app.py")
BIN = Path(sys.executable).parent
LIMIT_S = 420.0
EXPIRED = "Runtime task-token authentication failed"
PROJECT = """
[project]
name = "rounds"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "tests"
[tool.flwr.app.components]
serverapp = "rounds.app:server"
clientapp = "rounds.app:client"
"""


@contextmanager
def running(folder: Path, log: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_HOME": str(folder / "home"),
        "RESULT": str(folder / "result.json"),
        "PYTHONPATH": os.pathsep.join(map(str, sys.path)),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1",
    }
    with (folder / log).open("wb") as stream:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], stdout=stream, stderr=stream, env=environment, cwd=folder / "rounds"
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def test_a_round_and_a_secure_sum_end_under_flowers_own_processes(tmp_path: Path) -> None:
    package, port = tmp_path / "rounds" / "rounds", sites_kit.free_port()
    package.mkdir(parents=True)
    shutil.copy(APP, package / "app.py")
    (package / "__init__.py").touch()
    (tmp_path / "rounds" / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "home").mkdir()
    link = f"127.0.0.1:{port}"
    (tmp_path / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "{link}"\ninsecure = true\n'
    )
    result, give_up_s = tmp_path / "result.json", time.monotonic() + LIMIT_S
    with ExitStack() as stack:
        start = ("--insecure", "--host", "127.0.0.1", "--port", str(port))
        no_installs = "--disable-runtime-dependency-installation"
        stack.enter_context(running(tmp_path, "link.log", "flower-superlink", no_installs, *start))
        for site in (1, 2):
            own = ("--host", "127.0.0.1", "--port", str(sites_kit.free_port()), "--node-config", f"site={site}")
            node = ("flower-supernode", "--insecure", "--superlink", link, *own)
            stack.enter_context(running(tmp_path, f"node-{site}.log", *node))
        while not submitted(tmp_path) and time.monotonic() < give_up_s:
            time.sleep(1.0)
        while not result.exists() and time.monotonic() < give_up_s:
            time.sleep(0.5)
    logs = "".join(path.read_text(errors="replace") for path in sorted(tmp_path.glob("*.log")))
    if not result.exists() and EXPIRED in logs:
        pytest.skip("this host is too busy: Flower's process for a message did not start within the 30 s of its claim")
    assert result.exists(), logs[-4000:]
    told = json.loads(result.read_text())
    assert told["w"] == pytest.approx([(1 * 1 + 2 * 2) / 3] * 3)
    assert told["sum"] == [0.0, 0.25, 0.5, 0.75, 1.0] and told["sites"] == 2


def submitted(folder: Path) -> bool:
    """Whether the SuperLink took the app: it refuses until it listens."""
    with running(folder, "run.log", "flwr", "run", ".", "local") as process:
        done = process.wait(120) == 0
    said = (folder / "run.log").read_text(errors="replace")
    assert "Invalid" not in said, said
    return done
