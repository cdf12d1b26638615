"""The contract of targets, kept by this one."""

from edgedeploy_capsule import CapsuleTarget

from edgedeploy import Target
from edgedeploy.testing import TargetContract


class TestCapsule(TargetContract):
    def make(self) -> Target:
        return CapsuleTarget()
