"""MLPerf's scenarios, each a way to put load on a board. They run on the candidate alone, after the interleaved
blocks."""
