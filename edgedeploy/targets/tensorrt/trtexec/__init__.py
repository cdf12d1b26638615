"""Runs TensorRT on a board through its trtexec, and checks its logs and exports."""
