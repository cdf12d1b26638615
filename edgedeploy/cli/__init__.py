"""The command line. It prints and exits; everything it shows comes from the API.

Exit codes: 0 ok, 1 goal not met or a regression, 2 usage, 3 board or infrastructure, 4 partial (interrupted, or a number
missing).
"""

try:
    import typer  # noqa: F401
except ModuleNotFoundError:  # the base install: of this room it has `unpack.py` alone, and who asks for more is told
    pass
else:
    from edgedeploy.cli import begin  # isort: skip  # `edgedeploy --help` lists the commands in the order of these lines
    from edgedeploy.cli import plan  # isort: skip
    from edgedeploy.cli import study  # isort: skip
    from edgedeploy.cli import show  # isort: skip
    from edgedeploy.cli import oneshot  # isort: skip
    from edgedeploy.cli import bundle  # isort: skip
    from edgedeploy.cli import signing  # isort: skip
    from edgedeploy.cli import activate  # isort: skip
    from edgedeploy.cli import audit  # isort: skip
    from edgedeploy.cli import nightly  # isort: skip
    from edgedeploy.cli import federated  # isort: skip
    from edgedeploy.cli import look  # isort: skip
    from edgedeploy.cli import recode  # isort: skip

__all__ = [
    "activate",
    "audit",
    "begin",
    "bundle",
    "federated",
    "look",
    "nightly",
    "oneshot",
    "plan",
    "recode",
    "show",
    "signing",
    "study",
]
