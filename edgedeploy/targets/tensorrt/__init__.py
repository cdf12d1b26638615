"""TensorRT for NVIDIA Jetson: ONNX that it takes, rules per release, and ``trtexec`` on the board.

Only the board needs a GPU. Each result states how far it was proved: ``lint``, ``parsed``, ``built`` (both by TensorRT
for RTX on the CPU, a proxy) or ``measured``.
"""

from edgedeploy.targets.tensorrt.lint import LintResult, Platform, lint_file
from edgedeploy.targets.tensorrt.proof import Evidence, Level
from edgedeploy.targets.tensorrt.prove import Verdict, verdict
from edgedeploy.targets.tensorrt.target import TensorRtTarget
from edgedeploy.targets.tensorrt.trtexec.log import LogRefused, accept, read_runs
from edgedeploy.targets.tensorrt.trtexec.measure import TrtResult, measure_on_board, require_comparable
from edgedeploy.targets.tensorrt.version import TrtVersion

__all__ = [
    "TensorRtTarget",
    "Evidence",
    "Level",
    "LintResult",
    "LogRefused",
    "Platform",
    "TrtResult",
    "TrtVersion",
    "Verdict",
    "accept",
    "lint_file",
    "measure_on_board",
    "read_runs",
    "require_comparable",
    "verdict",
]
