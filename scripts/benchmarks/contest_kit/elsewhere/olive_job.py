"""Olive's static quantization of one ONNX file; runs in an environment that has Olive: MODEL.onnx CASES.npy OUT.onnx."""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from olive import run
from olive.data.registry import Registry

model, cases, out = sys.argv[1:]


class Calibration:
    def __init__(self):
        self.images = np.load(cases)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return {"image": self.images[index]}, 0


@Registry.register_dataset()
def contest_calibration(data_dir=None, **options):
    return Calibration()


with tempfile.TemporaryDirectory() as place:
    run(
        {
            "input_model": {"type": "ONNXModel", "model_path": model},
            "data_configs": [
                {
                    "name": "calibration",
                    "load_dataset_config": {"type": "contest_calibration"},
                    "dataloader_config": {"batch_size": 1},
                }
            ],
            "passes": {
                "quantize": {
                    "type": "OnnxStaticQuantization",
                    "data_config": "calibration",
                    "quant_format": "QDQ",
                    "activation_type": "uint8",
                    "precision": "int8",
                    "per_channel": True,
                }
            },
            "output_dir": place,
            "cache_dir": str(Path(place) / "cache"),
        }
    )
    shutil.copyfile(next(Path(place).glob("*.onnx")), out)
