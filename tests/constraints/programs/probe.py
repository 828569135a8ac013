"""Completes a TLS handshake with 127.0.0.1:PORT as HOST: probe.py MODULE HOST PORT FILE, MODULE being ssl or rtls."""

import importlib
import socket
import sys
from typing import Any


def main(module: str, host: str, port: str, file: str) -> None:
    tls: Any = importlib.import_module(module)
    context = tls.create_default_context(cafile=file)
    try:
        with (
            socket.create_connection(("127.0.0.1", int(port)), 30) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            connection.getpeercert()
    except tls.SSLError as e:
        raise SystemExit(str(e)) from None


main(*sys.argv[1:])
