"""
Whole modules whose inside we lean on, beside the single functions of test_internals.py: a new release that changes one
fails here and names our files to read again.
"""

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = sorted(p for folder in ("sidecar", "addons") for p in (ROOT / folder).rglob("*.py"))
OTHERS = ("mitmproxy", "h11", "h2", "hpack", "hyperframe", "wsproto", "OpenSSL")

# By the SHA-256 of their text, as it is in requirements.lock.
INSIDE = {
    "OpenSSL.SSL": "29670e4acc77940a",
    "h11._readers": "6b8472a4e454082d",
    "h2.connection": "001ac10ddb176742",
    "mitmproxy.addonmanager": "1dc72e4f560c8873",
    "mitmproxy.addons.proxyserver": "a49266a3774fbb9e",
    "mitmproxy.command": "f352b0ba8ef61bcc",
    "mitmproxy.proxy.layer": "c45454046edfdf03",
    "mitmproxy.proxy.layers": "5687793c42b3ffeb",
    "mitmproxy.proxy.layers.http": "0e7b3474f7febddc",
    "mitmproxy.proxy.layers.http._base": "513429df48dde3de",
    "mitmproxy.proxy.layers.http._events": "9fcac07bf6000727",
    "mitmproxy.proxy.layers.http._hooks": "9919eae28b33fc8c",
    "mitmproxy.proxy.layers.http._http1": "a2ed8918f1c4a070",
    "mitmproxy.proxy.layers.http._http2": "f47bdcb75c97138f",
    "mitmproxy.proxy.layers.http._http_h2": "62b992b8e61893a6",
    "mitmproxy.proxy.layers.tls": "76e315d8e64355a7",
    "mitmproxy.proxy.layers.websocket": "1c3e6090aa92f884",
    "mitmproxy.proxy.mode_servers": "1b980ec81b97843f",
    "mitmproxy.proxy.server": "8e7a49721801ffc2",
    "mitmproxy.proxy.tunnel": "a063fb4bc7f50f91",
}
# Public by name, but reached into: by attributes with an underscore, by subclassing, or in the order of their imports.
REACHED = {
    "OpenSSL.SSL": ("sidecar/runtime/tls_io.py", "sidecar/tls_profile.py", "sidecar/upstreams/handshake.py"),
    "h2.connection": ("addons/http2.py",),
    "mitmproxy.addonmanager": ("sidecar/runtime/hooks.py", "sidecar/runtime/engine.py"),
    "mitmproxy.addons.proxyserver": ("sidecar/runtime/engine.py", "addons/internals.py"),
    "mitmproxy.command": ("sidecar/runtime/slim.py",),
    "mitmproxy.proxy.layer": ("sidecar/runtime/plumbing.py",),
    "mitmproxy.proxy.layers": ("sidecar/runtime/slim.py",),
    "mitmproxy.proxy.layers.http": ("addons/internals.py", "sidecar/runtime/plumbing.py", "sidecar/runtime/slim.py"),
    "mitmproxy.proxy.layers.tls": ("addons/layers.py", "sidecar/runtime/tls_io.py"),
    "mitmproxy.proxy.layers.websocket": ("addons/websocket.py",),
    "mitmproxy.proxy.mode_servers": ("sidecar/runtime/listeners.py", "sidecar/runtime/transparent.py"),
    "mitmproxy.proxy.server": ("sidecar/runtime/driver.py", "addons/connections.py", "addons/idle.py"),
    "mitmproxy.proxy.tunnel": ("addons/layers.py", "sidecar/runtime/plumbing.py"),
}


def private_imports(path: Path) -> Iterator[str]:
    """Modules with an underscore, of those whose inside isn't ours, that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] in OTHERS and any(part.startswith("_") for part in parts) and find_module(name):
                yield name


def find_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


USED: dict[str, list[str]] = {name: list(files) for name, files in REACHED.items()}
for _path in OURS:
    for _name in sorted(set(private_imports(_path))):
        USED.setdefault(_name, []).append(str(_path.relative_to(ROOT)))


def digest(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None and spec.origin is not None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", sorted(USED))
def test_what_we_reach_into_is_what_we_have_read(name: str) -> None:
    assert digest(name) == INSIDE.get(name), f"{name} is another one: compare it, read again {', '.join(USED[name])}"


def test_nothing_is_listed_that_we_no_longer_reach_into() -> None:
    assert set(INSIDE) == set(USED)
    assert all((ROOT / file).is_file() for files in REACHED.values() for file in files)
