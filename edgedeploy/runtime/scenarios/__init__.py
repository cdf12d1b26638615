"""The ways of loading a board (MLPerf's scenarios) that run on the candidate alone, after the interleaved blocks."""
