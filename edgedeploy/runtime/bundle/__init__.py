"""A bundle on the device that runs it: read once, verified, and refused with a reason."""
