"""What several benchmarks need; nothing here is a benchmark of its own."""
