"""Image files as numbers: what every task that reads images asks, so that a file means the same everywhere."""
