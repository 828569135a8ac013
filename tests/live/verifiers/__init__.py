"""Clients of seven TLS implementations or settings, each trusting the roots in one file and nobody else."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.live.wire import environment

HERE: Final = Path(__file__).parent
PLACES: Final = ("{proxy}", "{host}", "{port}", "{roots}")


@dataclass(frozen=True)
class Verifier:
    """
    A client.

    Attributes:
        command: Its command line; the four places, and ``{here}`` and ``{built}``, are filled in.
        refusal: What it says where it doesn't accept a chain, in each of these words.
        build: How its program is made once, if it has to be.
        stdin: What it is fed.
    """

    command: tuple[str, ...]
    refusal: tuple[str, ...]
    build: tuple[str, ...] = ()
    stdin: str = ""


VERIFIERS: Final = {
    "curl": Verifier(
        (
            *("curl", "--silent", "--show-error", "--proxy", "http://127.0.0.1:{proxy}", "--cacert", "{roots}"),
            *("--capath", "/nonexistent", "https://{host}:{port}/"),
        ),
        ("SSL certificate problem",),
    ),
    "openssl": Verifier(
        (
            *("openssl", "s_client", "-quiet", "-verify_return_error", "-verify_hostname", "{host}", "-no-CApath"),
            *("-no-CAstore", "-CAfile", "{roots}", "-proxy", "127.0.0.1:{proxy}", "-connect", "{host}:{port}"),
            *("-servername", "{host}"),
        ),
        ("verify error",),
        stdin="GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n",
    ),
    "Python, strict": Verifier((sys.executable, "{here}/fetch.py", *PLACES), ("CERTIFICATE_VERIFY_FAILED",)),
    "Node": Verifier(("node", "{here}/fetch.js", *PLACES), ("certificate", "subtree violation")),
    "Go": Verifier(
        ("{built}/fetch-go", *PLACES), ("x509: ",), build=("go", "build", "-o", "{built}/fetch-go", "{here}/fetch.go")
    ),
    "Java": Verifier(
        ("java", "-XX:TieredStopAtLevel=1", "-cp", "{built}", "Fetch", *PLACES),
        ("CertPathValidatorException", "CertPathBuilderException"),
        build=("javac", "-d", "{built}", "{here}/Fetch.java"),
    ),
    "wget (GnuTLS)": Verifier(
        (
            *("wget", "--no-verbose", "-O", "-", "-e", "https_proxy=http://127.0.0.1:{proxy}"),
            *("--tries=1", "--ca-certificate={roots}", "https://{host}:{port}/"),
        ),
        ("is not trusted",),
    ),
}


@dataclass(frozen=True)
class Verdict:
    """What a client made of a server's chain."""

    accepted: bool  # it got the answer
    refused: bool  # it got none, and said that it's because of the chain
    said: str


def ask(name: str, built: Path, *, proxy: int, host: str, port: int, roots: Path) -> Verdict:
    """Let one client fetch ``https://HOST:PORT/`` through the proxy; programs are built once, in *built*."""
    verifier = VERIFIERS[name]
    values = {"proxy": proxy, "host": host, "port": port, "roots": roots, "here": HERE, "built": built}
    if verifier.build and not (made := built / f"{name}.built").exists():
        _run(verifier.build, values, check=True)
        made.touch()
    done = _run(verifier.command, values, stdin=verifier.stdin.format(**values))
    said = done.stdout + done.stderr
    accepted = done.returncode == 0 and f"hello from {host}" in done.stdout
    return Verdict(accepted, not accepted and any(word in said for word in verifier.refusal), said)


def _run(
    command: tuple[str, ...], values: dict[str, object], *, stdin: str = "", check: bool = False
) -> subprocess.CompletedProcess[str]:
    words = [word.format(**values) for word in command]
    if shutil.which(words[0]) is None:
        if os.environ.get("CI"):
            pytest.fail(f"needs {words[0]}")
        pytest.skip(f"needs {words[0]}")
    variables = environment(GO111MODULE="off", GOFLAGS="", GOTOOLCHAIN="local", JAVA_TOOL_OPTIONS="")
    return subprocess.run(words, input=stdin, env=variables, capture_output=True, text=True, timeout=120, check=check)
