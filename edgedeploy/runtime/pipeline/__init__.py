"""Pre- and post-processing as data, and its execution with numpy alone: study, golden vectors and product run the same
steps."""
