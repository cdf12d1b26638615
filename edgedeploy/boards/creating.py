"""``edgedeploy boards create``: builds what an emulated processor needs, or shows that it needs nothing."""

from __future__ import annotations

from edgedeploy.boards.arm import build
from edgedeploy.boards.arm.image import ARM_MACHINES
from edgedeploy.boards.x86 import haswell
from edgedeploy.boards.x86.board import MACHINE as X86_MACHINE
from edgedeploy.errors import SpecError, nearest
from edgedeploy.spec.boards import MACHINES


def create(machine: str, tell: build.Tell) -> None:
    """Prepare ``machine``; ``tell`` gets a line at each step.

    Raises ``SpecError`` for an unknown machine, ``TargetUnavailable`` on a host that cannot emulate it,
    ``CommandFailed`` when a step fails.
    """
    if machine == X86_MACHINE:
        haswell.check(f"edgedeploy boards create {machine}")
        tell(f"{machine}: nothing has to be built: this host's own programs are run by {haswell.QEMU}, and a trial ran")
        return
    for known in ARM_MACHINES:
        if machine == known:
            build.create(known, tell)
            return
    raise SpecError(f"machine {machine!r}", "there is no such machine", nearest(machine, MACHINES))
