"""``python -m edgedeploy.runtime``: the agent without its zip."""

import sys

from edgedeploy.runtime.agent.commands import main

sys.exit(main())
