"""
Takes out of a virtual environment what nothing reads at run time: headers, sources of extensions, tests, the symbols
for debuggers, the page of mitmweb, and every command but `sidecar`.

    python strip.py /opt/egress
"""

import shutil
import subprocess
import sys
from pathlib import Path

FOLDERS = {"tests", "test", "__pycache__"}
SUFFIXES = {".pyi", ".pyx", ".pxd", ".pxi", ".c", ".h", ".cpp", ".hpp", ".pyc", ".lib", ".a"}
UNUSED = ("mitmproxy/tools/web/static", "mitmproxy/tools/web/templates")


def main(environment: Path) -> None:
    for command in environment.glob("bin/*"):
        if command.name != "sidecar" and not command.name.startswith("python"):
            command.unlink()
    for packages in environment.glob("lib/python3.*/site-packages"):
        for name in UNUSED:
            shutil.rmtree(packages / name, ignore_errors=True)
        for folder, folders, files in packages.walk():
            for name in FOLDERS.intersection(folders):
                shutil.rmtree(folder / name)
                folders.remove(name)
            for path in (folder / name for name in files):
                if path.suffix in SUFFIXES:
                    path.unlink()
                elif path.suffix == ".so" or ".so." in path.name:
                    subprocess.run(["strip", "--strip-debug", path], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
