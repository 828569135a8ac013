"""The one compiled file in the tree is what its source says, and runs in every Java since 8."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import sidecar.trust

FOLDER = Path(sidecar.trust.__file__).parent / "java"
JAVA_8 = 52  # major version of its class files


def test_it_is_what_the_compiler_makes_of_the_source(tmp_path: Path) -> None:
    if shutil.which("javac") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("needs javac")
    options = ["--release", "8", "-g:none", "-nowarn", "-Xlint:-options"]
    subprocess.run(["javac", *options, "-d", str(tmp_path), str(FOLDER / "Probe.java")], check=True)

    assert disassembled(FOLDER) == disassembled(tmp_path)


def test_it_is_for_java_8() -> None:
    content = (FOLDER / "Probe.class").read_bytes()

    assert int.from_bytes(content[:4]) == 0xCAFEBABE
    assert int.from_bytes(content[6:8]) == JAVA_8


def disassembled(folder: Path) -> str:
    """Instructions with the constants that they name; another compiler may number these differently."""
    command = ["javap", "-c", "-p", "-constants", str(folder / "Probe.class")]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "\n".join(" ".join(word for word in line.split() if not word.startswith("#")) for line in text.splitlines())
