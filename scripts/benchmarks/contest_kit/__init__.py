"""The parts of `scripts/bench contest`: task and checkpoint, the tools' recipes, our study, one scoring program."""
