"""
Applies each break of ``breaks.toml`` to a copy of the tree and runs the tests that have to notice.

``python -m tests.breaks [WORD…]`` runs those whose name has one of the words in it. A break names a file, the text
that is there exactly once, what it becomes, and the tests. Exit 1 if any break goes unnoticed, or no longer fits.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from rich.console import Console

ROOT = Path(__file__).parents[2]
COPIED = ("sidecar", "addons", "tests", "demo", "bench", "deploy", "docs", "pyproject.toml", "README.md", "Makefile")
SECONDS = 300


def run(entry: dict[str, Any], folder: Path) -> str | None:
    """Break a copy and run its tests; None if they noticed, else what is wrong."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    file = folder / entry["file"]
    text = file.read_text()
    if (found := text.count(entry["old"])) != 1:
        return f"{entry['file']} has the text {found} times; the break no longer fits"
    file.write_text(text.replace(entry["old"], entry["new"]))
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *entry["tests"]]
    # The copy in front of the installed package; everything a test starts inherits it.
    variables = os.environ | {"PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=SECONDS)
    if result.returncode == 0:
        return "the tests stay green"
    if result.returncode != 1:  # 1: tests ran and failed; all else is no proof
        return f"pytest ended with {result.returncode}: {result.stdout[-2000:]}{result.stderr[-500:]}"
    if "passed" not in result.stdout and "failed" not in result.stdout:
        return f"no test ran: {result.stdout[-2000:]}"
    return None


def main() -> None:
    console = Console()
    entries = tomllib.loads((Path(__file__).with_name("breaks.toml")).read_text())["break"]
    words = sys.argv[1:]
    chosen = [entry for entry in entries if not words or any(word in entry["name"] for word in words)]
    unnoticed = 0
    for entry in chosen:
        with tempfile.TemporaryDirectory(prefix="break-") as folder:
            problem = run(entry, Path(folder))
        unnoticed += problem is not None
        mark = "[green]noticed[/]" if problem is None else "[red]UNNOTICED[/]"
        console.print(f"{mark}  {entry['name']}", highlight=False)
        if problem is not None:
            console.print(f"    {problem}", markup=False, highlight=False)
    console.print(f"{len(chosen) - unnoticed} of {len(chosen)} breaks noticed", highlight=False)
    raise SystemExit(1 if unnoticed or not chosen else 0)


if __name__ == "__main__":
    main()
