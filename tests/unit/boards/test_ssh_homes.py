"""Paths of a board below homes that nobody has."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.boards.ssh.config import SshTarget, resolve
from edgedeploy.errors import SpecError

NOBODYS = "~nobody-of-this-name/key"


@pytest.mark.parametrize("key", ["identity", "known_hosts"])
def test_a_home_that_nobody_has_is_told_with_its_key(key: str, tmp_path: Path) -> None:
    target = SshTarget(host="127.0.0.1", user="edge", home=tmp_path, **{key: NOBODYS})  # type: ignore[arg-type]
    with pytest.raises(SpecError, match=f"{key} = '{NOBODYS}': there is no such file"):
        resolve(target)
