"""The ONNX reference that every artifact is held against: exported from torch, or taken in from a file."""
