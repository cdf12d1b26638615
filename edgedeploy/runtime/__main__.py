"""``python -m edgedeploy.runtime``: a product's commands (verify, activate, run), and those of the agent without its zip."""

import sys

from edgedeploy.runtime.agent.commands import main

sys.exit(main())
