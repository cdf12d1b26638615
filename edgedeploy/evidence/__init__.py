"""What may be concluded from stored measurements: statistics, the front, the report."""
