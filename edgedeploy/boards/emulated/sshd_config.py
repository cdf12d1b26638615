"""What the configurations of emulated boards' SSH servers have in common."""

from __future__ import annotations

from typing import Final

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
