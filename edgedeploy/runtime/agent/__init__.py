"""The agent: its commands, the lease of a board, jobs, and the processes that measure."""
