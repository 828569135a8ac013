"""The client where there is no curl: takes the few of its options that the demo needs, answers in its words."""

import argparse
import http.client
import os
import ssl
import sys
from typing import Any
from urllib.parse import urlsplit

_UNTRUSTED = 60  # curl's exit code for a certificate that it doesn't trust


def main() -> int:
    parser = argparse.ArgumentParser(prog="client.py", description="A few of curl's options, by its variables.")
    for flag, text in (("-s", "ignored"), ("-S", "ignored"), ("-i", "print the head"), ("-v", "print the issuer")):
        parser.add_argument(flag, action="store_true", help=text)
    parser.add_argument("-X", dest="method", default="GET")
    parser.add_argument("-H", dest="headers", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--cacert", default=os.environ.get("CURL_CA_BUNDLE"), metavar="FILE")
    parser.add_argument("url")
    arguments = parser.parse_args()
    url, proxy = urlsplit(arguments.url), urlsplit(os.environ["HTTPS_PROXY"])
    context = ssl.create_default_context(cafile=arguments.cacert)
    connection = http.client.HTTPSConnection(proxy.hostname or "", proxy.port, timeout=20, context=context)
    connection.set_tunnel(url.hostname or "", url.port)
    try:
        connection.connect()
        if arguments.v:
            certificate: Any = connection.sock.getpeercert()
            issuer = "; ".join(f"{key}={value}" for rdn in certificate["issuer"] for key, value in rdn)
            print(f"*  issuer: {issuer}", file=sys.stderr)
        connection.request(
            arguments.method,
            url.path,
            headers={name.strip(): value.strip() for name, _, value in (h.partition(":") for h in arguments.headers)},
        )
        answer = connection.getresponse()
    except ssl.SSLCertVerificationError as e:
        print(f"client.py: ({_UNTRUSTED}) {e.verify_message}", file=sys.stderr)
        return _UNTRUSTED
    except (OSError, http.client.HTTPException) as e:
        print(f"client.py: (56) {e}", file=sys.stderr)
        return 56
    head = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{name}: {value}" for name, value in answer.getheaders())]
    if arguments.v:
        print(*(f"< {line}" for line in head), sep="\n", file=sys.stderr)
    if arguments.i:
        print(*head, "", sep="\n")
    print(answer.read().decode(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
