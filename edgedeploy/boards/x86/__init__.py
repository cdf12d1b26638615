"""An emulated x86-64 board with an older processor than this host's, run by an instruction emulator on this host."""
