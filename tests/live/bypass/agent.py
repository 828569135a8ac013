"""
Runs probes as one user inside a namespace: a line of JSON in (probe, arguments), a line out (what came of it).

One process for a whole matrix, since an interpreter's start takes longer than most probes.
"""

import encodings.idna  # noqa: F401 (loaded late, it would be out of reach of a process that became another user)
import errno
import json
import os
import socket
import ssl
import sys
from typing import Any

from tests.live.bypass import probes


def attempt(name: str, arguments: list[Any]) -> str:
    """The probe's answer; ``timeout``, or the error's name, where it got none."""
    try:
        return probes.find(name)(*arguments)
    except TimeoutError:
        return "timeout"
    except ssl.SSLEOFError:
        return "closed"
    except ssl.SSLError as e:
        return f"TLS {(e.reason or str(e)).lower()}"
    except OSError as e:
        return errno.errorcode.get(e.errno or 0, type(e).__name__)
    except Exception as e:
        return f"the probe is wrong: {e!r}"


def in_a_child(name: str, arguments: list[Any]) -> str:
    """For probes that change the process itself."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writer, attempt(name, arguments).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def main() -> None:
    socket.setdefaulttimeout(3)
    print("ready", flush=True)
    for line in sys.stdin:
        name, arguments = json.loads(line)
        run = in_a_child if name.startswith("processes.") else attempt
        print(json.dumps(run(name, arguments)), flush=True)


if __name__ == "__main__":
    main()
