"""The Flower app of the test under real SuperLink and SuperNode processes, as the module of a FAB.

It is one round of recovery over two sites, and then a secure sum of what they hold. RESULT (environment) is the file that
the server writes at the end.
"""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from edgedeploy.federated.recovery import RecoverySettings, recover
from edgedeploy.federated.secure_sum import SumSettings, secure_sum, sum_app

SITES = 2
trained = ClientApp()
summed = sum_app(lambda _: [np.arange(5) / 8], 1.0)


@trained.train()
def train(message, context):
    number = int(context.node_config["site"])
    arrays = {name: Array(array.numpy() + number) for name, array in message.content["arrays"].items()}
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": number})})
    return Message(content, reply_to=message)


class Site(ClientApp):
    """Both apps: what asks for a round of recovery says which."""

    def __call__(self, message, context):
        app = trained if "config" in message.content else summed
        return app(message, context)


client = Site()
server = ServerApp()


@server.main()
def main(grid, context):
    result = Path(os.environ["RESULT"])
    while len(list(grid.get_node_ids())) < SITES:
        time.sleep(0.2)
    done = recover(grid, {"w": np.zeros(3)}, result.parent / "rounds", RecoverySettings(1))
    found = secure_sum(grid, SumSettings())
    told = {"w": done.weights["w"].tolist(), "sum": found.arrays[0].tolist(), "sites": found.sites}
    part = result.with_suffix(".part")
    part.write_text(json.dumps(told))
    part.replace(result)
