"""Where the tests' data is."""

from pathlib import Path

_HERE = Path(__file__).resolve()

# In the image the examples are beside the tests' own data; in a checkout they stay where they are.
EXAMPLES = next(folder for folder in (_HERE.parents[3] / "examples", _HERE.parent / "data") if folder.is_dir())
