"""What host, agent and cluster say to each other: one class per thing that is said, its fields written once."""
