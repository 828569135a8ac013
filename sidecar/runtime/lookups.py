"""
What mitmproxy looks at again and again (headers, options, contexts, certificates), looked at once.

Beside `plumbing`, and like it only on our engine: the same values, without a copy or a codec for each look.
"""

from typing import Any, Final

import hpack.hpack
import hpack.table
from mitmproxy.certs import Cert
from mitmproxy.http import Headers, Request
from mitmproxy.options import Options
from mitmproxy.proxy.context import Context
from OpenSSL import crypto

from sidecar.upstreams.handshake import parsed_certificate

STOCK: Final[dict[str, Any]] = {
    "Context.fork": Context.fork,
    "Headers.get_all": Headers.get_all,
    "Headers.__getitem__": Headers.__getitem__,
}
"""What is replaced, as mitmproxy has it."""


def install() -> None:
    """Replace the parts; a second call changes nothing."""
    Cert.from_pyopenssl = staticmethod(_certificate)  # type: ignore[assignment,method-assign]
    Request.authority = property(_authority, Request.authority.fset)  # type: ignore[assignment,attr-defined]
    codec: Any
    for codec in (hpack.hpack, hpack.table):
        # A dozen messages for each head, into the void: asking the logger for each costs more than the table.
        codec.log = _Silent()
    Context.fork = _fork  # type: ignore[method-assign]
    Headers.get_all = _get_all  # type: ignore[method-assign]
    Headers.__getitem__ = _getitem  # type: ignore[method-assign,assignment]
    Headers.__contains__ = _contains  # type: ignore[assignment,method-assign]
    Headers.get = _get  # type: ignore[method-assign,assignment]


def _fork(self: Context) -> Context:
    """As stock, without a server connection that is thrown away."""
    fork = Context.__new__(Context)
    fork.client, fork.options, fork.server, fork.layers = self.client, self.options, self.server, self.layers.copy()
    return fork


def _certificate(certificate: crypto.X509) -> Cert:
    """As stock; what has been parsed isn't parsed again."""
    return Cert(parsed_certificate(certificate))


_stock_authority: Any = Request.authority.fget  # type: ignore[attr-defined]


def _authority(self: Request) -> str:
    """As stock, without a codec for what has nothing to decode."""
    raw = self.data.authority
    if raw.isascii() and b"xn--" not in raw.lower():
        return raw.decode("ascii")
    authority: str = _stock_authority(self)
    return authority


class _Silent:
    def debug(self, *_: object) -> None:
        pass


class Snapshot:
    """mitmproxy's options as plain attributes, renewed when one changes: theirs are copied deeply at each look."""

    def __init__(self, options: Options) -> None:
        self._options = options
        options.changed.connect(self._renew)
        self._renew()

    def _renew(self, *_: object, **__: object) -> None:
        self.__dict__.update({name: getattr(self._options, name) for name in self._options.keys()})  # noqa: SIM118

    def __getattr__(self, name: str) -> Any:
        return getattr(self._options, name)  # declared since


def _values(headers: Headers, name: str | bytes) -> list[bytes] | None:
    """The values of a field. Their names are put into lower case once, not for each of some thirty looks a request."""
    fields = headers.fields
    state = headers.__dict__
    if state.get("_indexed") is not fields:
        index: dict[bytes, list[bytes]] = {}
        for field, value in fields:
            index.setdefault(field.lower(), []).append(value)
        state["_index"] = index
        state["_indexed"] = fields if type(fields) is tuple else None
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    found: list[bytes] | None = state["_index"].get(name.lower())
    return found


def _text(values: list[bytes]) -> str:
    if len(values) == 1:
        return values[0].decode("utf-8", "surrogateescape")
    return ", ".join([value.decode("utf-8", "surrogateescape") for value in values])


def _get_all(self: Headers, name: str | bytes) -> list[str]:
    return [value.decode("utf-8", "surrogateescape") for value in _values(self, name) or ()]


def _getitem(self: Headers, name: str | bytes) -> str:
    if (values := _values(self, name)) is None:
        raise KeyError(name)
    return _text(values)


def _contains(self: Headers, name: object) -> bool:
    return isinstance(name, (str, bytes)) and _values(self, name) is not None


def _get(self: Headers, name: str | bytes, default: Any = None) -> Any:
    return default if (values := _values(self, name)) is None else _text(values)
