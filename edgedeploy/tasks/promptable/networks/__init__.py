"""The networks of promptable tasks. Their modules import torch and are imported inside functions.

All take image (N, C, H, W) and prompt (N * M, 2, 5), M prompts of each image in order, and give logits (N * M, 2, H / 2,
W / 2) of background and the structure asked for.
"""
