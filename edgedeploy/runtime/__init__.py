"""What runs on a board: standard library and numpy only; a backend is imported when its session opens."""
