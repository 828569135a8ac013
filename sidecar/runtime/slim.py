"""
What mitmproxy imports and we don't use is put off until somebody asks for it: a third of start and of idle memory.

Everything here rests on which modules mitmproxy `KNOWN` imports, and when; under any other the stock imports are left
alone. Nothing is taken away: whoever asks a module that was put off for anything, as an addon may, gets all of it.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mitmproxy.version import VERSION

KNOWN = "12.2.3"


class PutOff(ModuleType):
    """A module that runs its own code when it's asked for something that it hasn't."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "__path__" in vars(self):
            try:
                return import_module(f"{self.__name__}.{name}")
            except ModuleNotFoundError as e:
                if e.name != f"{self.__name__}.{name}":
                    raise
        return getattr(run(self), name)


def run(module: ModuleType) -> ModuleType:
    """Make a module that was put off what it would have been."""
    if isinstance(module, PutOff):
        module.__class__ = ModuleType  # type: ignore[assignment]  # first: its code may come by here again
        assert module.__spec__ is not None and isinstance(module.__spec__.loader, _Later)
        module.__spec__.loader.stock.exec_module(module)
    return module


def slim() -> None:
    """Before anything else of mitmproxy is imported. Does nothing where that is too late, or with another mitmproxy."""
    if VERSION == KNOWN and "mitmproxy.addons" not in sys.modules and "mitmproxy.http" not in sys.modules:
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _PUT_OFF:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)
        return spec


class _Later(Loader):
    def __init__(self, stock: Loader) -> None:
        self.stock = stock

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return PutOff(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_PUT_OFF[module.__name__])


def _unused(*names: str) -> dict[str, object]:
    """Stand-ins for classes that are only named, until one of them is made."""

    def unused(self: object, *_: object) -> None:
        raise NotImplementedError(f"{type(self).__name__}: HTTP/3 isn't spoken here")

    return {name: type(name, (), {"__init__": unused}) for name in names}


def _unquote(text: str) -> str:
    unquote: Any = run(sys.modules["mitmproxy.command_lexer"]).unquote
    return str(unquote(text))


# Each with what is taken from it while others are imported.
_PUT_OFF: dict[str, dict[str, object]] = {
    # Imports all 40 of them, and Flask, LDAP and more with them.
    "mitmproxy.addons": {},
    # HTTP/3 has no listener and no upstream here.
    "mitmproxy.proxy.layers.quic": _unused(
        "ClientQuicLayer", "QuicStreamLayer", "RawQuicLayer", "ServerQuicLayer", "QuicStreamEvent"
    ),
    "mitmproxy.proxy.layers.http._http3": _unused("Http3Client", "Http3Server"),
    # Commands and markers are typed by a user of mitmproxy's console; bodies are decoded by addons alone.
    "mitmproxy.command_lexer": {"unquote": _unquote},
    "mitmproxy.utils.emoji": {},
    "pyparsing": {},
    "brotli": {},
    "zstandard": {},
}
