"""TensorRT on a board through its own trtexec, and proof from what it answers."""
