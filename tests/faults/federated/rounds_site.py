"""A site of the tests on killed rounds, as a process: adds its own number to the weights. FOLDER has what it is to suffer.

    rounds_site.py NODE FOLDER

`NODE.kill-ROUND` there: the process is killed by SIGKILL in the middle of that round, once. `hold-ROUND`: it stays in that
round while the file is there. `NODE.log` gets a line a round.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from edgedeploy.federated.recovery_processes import serve

node, folder = int(sys.argv[1]), Path(sys.argv[2])
app = ClientApp()


@app.train()
def train(message, context):
    number = int(message.content["config"]["server-round"])
    killed = folder / f"{node}.kill-{number}"
    if killed.exists():
        killed.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / f"{node}.in-{number}").touch()
    while (folder / f"hold-{number}").exists():
        time.sleep(0.02)
    with (folder / f"{node}.log").open("a") as log:
        log.write(f"{number}\n")
    arrays = {name: Array(array.numpy() + node) for name, array in message.content["arrays"].items()}
    if (folder / f"{node}.nan").exists():
        arrays["w"] = Array(np.full(3, np.nan))
    sys.stdout.write("what an app prints is no message\n")
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": node})})
    return Message(content, reply_to=message)


serve(app, node)
