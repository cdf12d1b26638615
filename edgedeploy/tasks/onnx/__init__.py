"""A task that is an ONNX file with its inputs."""
