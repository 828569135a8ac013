"""
Looks for a key wherever this user can look: ``python key_search.py FOLDER…``, standard library alone.

Standard input: a JSON list of what to look for, in hexadecimal. Standard output: a JSON object, ``found`` with the
paths that hold any of it and ``read``, the number of files that were looked into. Beside the folders these are, of
every process that may be asked, the environment, the command line, the open files, and the folders below its own root.
"""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

LARGEST = 1 << 24
SKIPPED = ("/proc", "/sys")


def files_of(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        if parent in SKIPPED:
            folders.clear()
            continue
        yield from (Path(parent, name) for name in names)


def files_of_processes(folders: list[Path]) -> Iterator[Path]:
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):  # which has what it looks for in memory
            continue
        yield process / "environ"
        yield process / "cmdline"
        try:
            yield from (process / "fd").iterdir()
            for folder in folders:
                if folder != Path("/"):
                    yield from files_of(process / "root" / folder.relative_to("/"))
        except OSError:
            continue


def holds(path: Path, needles: list[bytes]) -> bool | None:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return any(needle in data for needle in needles)


def main() -> None:
    folders = [Path(argument) for argument in sys.argv[1:]]
    needles = [bytes.fromhex(text) for text in json.loads(sys.stdin.readline())]
    found, read = [], 0
    for source in (*(files_of(folder) for folder in folders), files_of_processes(folders)):
        for path in source:
            if (held := holds(path, needles)) is not None:
                read += 1
                if held:
                    found.append(str(path))
    print(json.dumps({"found": found, "read": read}), flush=True)


if __name__ == "__main__":
    main()
