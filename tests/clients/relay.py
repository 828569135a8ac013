"""
Stands before the sidecar's explicit listener and notes who came by it: a client that reads ``HTTPS_PROXY``.

The fence redirects all others, so that each client reaches the sidecar, and only this tells which way it took.
"""

import asyncio
import sys
from contextlib import suppress
from pathlib import Path


async def relay(listen: int, proxy: int, noted: Path) -> None:
    """Pass 127.0.0.1:*listen* on to *proxy*; the first line of each connection goes to *noted*."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        with suppress(OSError, RuntimeError):
            writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readuntil(b"\n")
            with noted.open("ab") as file:
                file.write(first)
            back, out = await asyncio.open_connection("127.0.0.1", proxy)
            out.write(first)
            await asyncio.gather(pump(reader, out), pump(back, writer))
            out.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", listen)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(relay(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
