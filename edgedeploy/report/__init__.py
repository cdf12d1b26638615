"""The report: one offline HTML file, and tables for a terminal."""
