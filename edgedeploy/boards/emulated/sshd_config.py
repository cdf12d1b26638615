"""Configurations of emulated boards' SSH servers."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from edgedeploy.boards.ssh.config import user_name
from edgedeploy.runtime.agent.claim import PLACE

KEYS_ONLY: Final = """\
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
StrictModes no
"""
"""Nobody gets in without the session's own key."""

_SERVER: Final = (
    """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers {user}
"""
    + KEYS_ONLY
    + """\
SetEnv {variables}
Subsystem sftp internal-sftp
"""
)

_PLAIN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def server_config(folder: Path, port: int, place: str | None = None) -> str:
    """Of a server on this host, whose keys lie in ``folder``. Agents measure in ``place``, without one in that of this
    process, as those of a board without SSH do: sshd hands nothing else of its environment on.

    SHLVL: bash reads the user's ~/.bashrc before an SSH command when it is the outermost shell. A real board has no such
    file, and some of them take half a second per command.
    """
    place = os.environ.get(PLACE, "") if place is None else place
    given = f" {PLACE}={place}" if _PLAIN.fullmatch(place) else ""
    return _SERVER.format(port=port, folder=folder, user=user_name(), variables=f"SHLVL=1{given}")
