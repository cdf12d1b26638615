"""A bundle in the layouts of other tools. Only where a layout keeps all files can the signature still be verified."""
