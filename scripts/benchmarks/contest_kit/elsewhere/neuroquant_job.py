"""NeuroQuant's deployment path for one ONNX file; runs in an environment that has it: MODEL.onnx CASES.npy OUT.onnx.

Its search and its training take classifiers; what a segmentation network can be given to is the step that writes the int8
file. That step calls the input "input".
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from neuroquant.utils.onnx_export import quantize_onnx_static

model, cases, out = sys.argv[1:]


class Batch:
    """What the step asks of a batch: it is a torch tensor in its own pipeline."""

    def __init__(self, image):
        self.image = image

    def detach(self):
        return self

    def cpu(self):
        return self

    def numpy(self):
        return self.image


def renamed(path, before, after, target):
    graph = onnx.load(path)
    for node in graph.graph.node:
        node.input[:] = [after if name == before else name for name in node.input]
    for given in graph.graph.input:
        given.name = after if given.name == before else given.name
    onnx.save(graph, target)


images = np.load(cases)
with tempfile.TemporaryDirectory() as place:
    own, made = str(Path(place) / "own.onnx"), str(Path(place) / "made.onnx")
    name = onnx.load(model).graph.input[0].name
    renamed(model, name, "input", own)
    quantize_onnx_static(own, made, [Batch(image[None]) for image in images], num_batches=len(images))
    renamed(made, "input", name, out)
