"""Emulated Arm boards: a real arm64 system, run by an instruction emulator on this host."""
