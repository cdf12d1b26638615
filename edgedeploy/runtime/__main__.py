"""``python -m edgedeploy.runtime``: the agent without its zip."""

import sys

from edgedeploy.runtime.agent import main

sys.exit(main())
