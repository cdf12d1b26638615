"""axe-core, which finds what keeps people out of a page. Its licence (MPL-2.0) is not ours, so it is not in this
repository: the package registry's own client fetches it, once a machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from browser_kit import Browser

VERSION = "4.14.1"
FETCH_S = 60


def axe() -> str:
    """The script; the test is skipped where it cannot be had."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgedeploy-tests"
    package = cache / f"axe-core-{VERSION}.tgz"
    if not package.is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip(f"no axe-core in {cache}, and no npm to fetch it with")
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as own:  # tests beside this one fetch it too
            argv = [npm, "pack", "--silent", f"axe-core@{VERSION}", "--pack-destination", own]
            try:
                subprocess.run(argv, check=True, capture_output=True, timeout=FETCH_S)
                (Path(own) / package.name).replace(package)
            except (OSError, subprocess.SubprocessError) as exc:
                pytest.skip(f"axe-core {VERSION} cannot be fetched: {exc}")
    with tarfile.open(package) as files:
        stream = files.extractfile("package/axe.min.js")
        assert stream is not None
        return stream.read().decode()


def violations(reader: Browser, source: str) -> list[str]:
    """What axe finds, a line each."""
    reader.run(f"{source}; 0")
    rules = {"resultTypes": ["violations"], "runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]}
    found: list[dict[str, Any]] = reader.run(f"axe.run(document, {json.dumps(rules)}).then(r => r.violations)")
    return [f"{item['id']}: {node['html'][:120]} {node['failureSummary']}" for item in found for node in item["nodes"]]
