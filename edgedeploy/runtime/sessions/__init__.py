"""One session per target: an artifact that is loaded and ready to run."""
