"""What runs on a board: standard library and numpy only; a backend is imported when its session opens.

The same files are packed into one zip that is pushed to boards (``python agent.pyz COMMAND``), so they keep to Python 3.8,
in syntax and library: ``scripts/check`` types them against that library, and tests run them there.
"""

OLDEST_PYTHON = (3, 8)
"""Of a board, and so of every session that is brought there."""
