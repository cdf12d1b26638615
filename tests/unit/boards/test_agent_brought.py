"""Two hosts bring the agent to one board at once: neither loses what the other one brought."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from fault_kit import wait_for

from edgedeploy.boards.agent.client import BOOTSTRAP
from edgedeploy.boards.agent.file import agent_file

REMOVES = "            shutil.rmtree(path, ignore_errors=True)\n"
STOPS = "            import time\n            open(sys.argv[3] + '/about', 'w').close()\n"
STOPS += "            while not os.path.exists(sys.argv[3] + '/go'): time.sleep(0.01)\n"


def bring(code: str, root: Path, place: Path) -> subprocess.Popen[bytes]:
    agent = agent_file(())
    argv = [sys.executable, "-c", code, str(root), agent.sha256, str(place)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(agent.data)
    process.stdin.close()
    return process


def waits_for_a_lock(pid: int) -> bool:
    lines = Path("/proc/locks").read_text().splitlines()
    return any("->" in line.split() and str(pid) in line.split() for line in lines)


def test_what_one_host_brought_is_not_removed_by_another_that_looked_before(tmp_path: Path) -> None:
    """The one looks, finds none, and is held up; meanwhile the other brings it and goes on with it."""
    root = tmp_path / "root"
    assert BOOTSTRAP.count(REMOVES) == 1
    late = bring(BOOTSTRAP.replace(REMOVES, STOPS + REMOVES), root, tmp_path)
    try:
        wait_for("the first to have looked", (tmp_path / "about").exists)
        other = bring(BOOTSTRAP, root, tmp_path)
        wait_for("the second to end or to wait", lambda: other.poll() is not None or waits_for_a_lock(other.pid))
        (tmp_path / "about").rename(tmp_path / "go")
        assert other.stdout is not None and b'"here": true' in other.stdout.read()
        other.wait()
        (brought,) = (root / "agents").iterdir()
        used = brought.stat().st_ino
        assert late.stdout is not None and b'"here": true' in late.stdout.read()
        late.wait()
        assert [path.stat().st_ino for path in (root / "agents").iterdir()] == [used]
        assert os.access(brought / "__main__.py", os.R_OK)
    finally:
        late.kill()
        late.wait()
