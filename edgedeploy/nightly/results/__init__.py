"""What people and CI get of a night: its JSON file, JUnit, a summary in Markdown, a trend page, a lab page, one message."""

from edgedeploy.nightly.results.kept import Earlier
from edgedeploy.nightly.results.write import Written, write_results

__all__ = ["Earlier", "Written", "write_results"]
