"""Contract tests that other packages can run on their own implementations. Needs pytest and the ``study`` extra; no
other part of edgedeploy imports it."""

import pytest

pytest.register_assert_rewrite("edgedeploy.testing.targets")

from edgedeploy.testing.targets import TargetContract  # noqa: E402  # asserts are rewritten from here on

__all__ = ["TargetContract"]
