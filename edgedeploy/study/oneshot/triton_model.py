"""What Triton's Python backend runs for a model that edgedeploy has measured: the session of its own runtime.

Copied into a repository as ``model.py``. Parameters of ``config.pbtxt``: ``target``, ``entry``, ``threads``, and settings of
the session, each behind ``setting:``. Requests of one call are answered in one batch where the model takes batches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgedeploy.runtime.sessions.open import open_session

_SETTING = "setting:"


class TritonPythonModel:
    """One instance of the model; Triton calls its methods."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        told = {name: value["string_value"] for name, value in config["parameters"].items()}
        settings = {name[len(_SETTING) :]: value for name, value in told.items() if name.startswith(_SETTING)}
        folder = Path(args["model_repository"]) / args["model_version"]
        self._session = open_session(told["target"], folder, told["entry"], settings, int(told["threads"]))
        self._batched = config["max_batch_size"] > 0

    def execute(self, requests: list[Any]) -> list[Any]:
        """An answer for each request, in their order."""
        import triton_python_backend_utils as triton

        feeds = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self._session.inputs}
            for request in requests
        ]
        if self._batched:
            rows = [len(next(iter(feed.values()))) for feed in feeds]
            together = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._session.inputs}
            ends = np.cumsum(rows)[:-1]
            parts = {name: np.split(value, ends) for name, value in self._session.run(together).items()}
            answers = [{name: parts[name][index] for name in parts} for index in range(len(requests))]
        else:
            answers = [self._session.run(feed) for feed in feeds]
        return [
            triton.InferenceResponse(
                [triton.Tensor(name, np.ascontiguousarray(value)) for name, value in answer.items()]
            )
            for answer in answers
        ]
