"""The server of the tests on killed rounds: rounds_server.py FOLDER ROUNDS"""

import json
import sys
from pathlib import Path

import numpy as np

from edgedeploy.federated.recovery import RecoverySettings, recover
from edgedeploy.federated.recovery_processes import ProcessGrid

folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
site = str(Path(__file__).with_name("rounds_site.py"))
with ProcessGrid({node: [sys.executable, site, str(node), str(folder)] for node in (1, 2, 3)}) as grid:
    done = recover(grid, {"w": np.zeros(3)}, folder / "server", RecoverySettings(rounds, attempts=1, timeout_s=300))
sys.stdout.write(json.dumps([done.done, *done.weights["w"].tolist()]))
