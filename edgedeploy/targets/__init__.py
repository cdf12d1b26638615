"""Model in, artifact out: the ONNX reference, and one file per target."""
