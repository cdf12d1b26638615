"""A bundle: what an integrator gets, made from a study and signed."""
