"""How weights are shipped: quantized, entropy coded, in one file that decodes to the same bits everywhere."""
