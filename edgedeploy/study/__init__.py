"""One study: its checks, its run, its trials, its store."""
