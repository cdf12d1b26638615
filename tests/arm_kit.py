"""Emulated Arm boards for tests: built once in the user's cache; what this machine lacks is a visible skip."""

from __future__ import annotations

import functools

import pytest

from edgedeploy.boards.arm.build import create
from edgedeploy.boards.arm.image import ArmMachine, Image
from edgedeploy.errors import TargetUnavailable


@functools.cache
def _image(machine: ArmMachine) -> Image | str:
    try:
        return create(machine, print)
    except TargetUnavailable as exc:
        return str(exc)


def need_image(machine: ArmMachine) -> Image:
    found = _image(machine)
    if isinstance(found, str):
        pytest.skip(found)
    return found
