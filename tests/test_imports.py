"""The direction of dependencies: the core knows neither mitmproxy nor structlog nor the edges."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(p for folder in ("sidecar", "addons") for p in (ROOT / folder).rglob("*.py"))

MITMPROXY = {"mitmproxy", "mitmproxy_rs"}
# Only these speak to mitmproxy.
MAY_IMPORT_MITMPROXY = ("addons/", "sidecar/runtime/")
# The edges: they do I/O. Everything else in sidecar/ is core.
EDGES = (
    "sidecar/__main__.py",
    "sidecar/bootstrap.py",
    "sidecar/child.py",
    "sidecar/cli/",
    "sidecar/control/",
    "sidecar/enforce/",
    "sidecar/fence/check.py",
    "sidecar/fence/probe.py",
    "sidecar/inject/server.py",
    "sidecar/hardening.py",
    "sidecar/events/log.py",
    "sidecar/events/sinks.py",
    "sidecar/files.py",
    "sidecar/issue.py",
    "sidecar/logs.py",
    "sidecar/names/upstream.py",
    "sidecar/netfilter/apply.py",
    "sidecar/runtime/",
    "sidecar/secrets.py",
    "sidecar/trust/discovery.py",
    "sidecar/trust/doctor.py",
    "sidecar/trust/elsewhere.py",
    "sidecar/trust/load.py",
    "sidecar/trust/reach.py",
    "sidecar/trust/runs.py",
    "sidecar/upstreams/files.py",
)
IO = {
    "aiohttp",
    "asyncio",
    "os",
    "rich",
    "shutil",
    "socket",
    "structlog",
    "subprocess",
    "tempfile",
    "threading",
    "typer",
}


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a module imports at its top or anywhere inside."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_dependencies_point_inwards(path: Path) -> None:
    name, found = name_of(path), set(imports(path))
    tops = {module.partition(".")[0] for module in found}

    if not name.startswith(MAY_IMPORT_MITMPROXY):
        assert not tops & MITMPROXY, "only addons/ and sidecar/runtime/ import mitmproxy"
    if name.startswith("sidecar/") and not name.startswith(EDGES):
        assert not tops & IO, "the core does no I/O"
        inwards = {module for module in found if module.startswith(("addons", "sidecar.cli", "sidecar.runtime"))}
        assert not inwards, "the core imports no edge"
    if name.startswith("addons/"):
        assert not any(module.startswith("sidecar.cli") for module in found)


def test_the_scan_sees_what_it_forbids() -> None:
    assert "mitmproxy" in {module.partition(".")[0] for module in imports(ROOT / "addons" / "gate.py")}
    assert len(MODULES) > 30
