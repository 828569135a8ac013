"""``python -m tests.conformance``: the page docs/conformance.md, on standard output."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.conformance.table import page, run

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        sys.stdout.write(page(*run(Path(folder))))
