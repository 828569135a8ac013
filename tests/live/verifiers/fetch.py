"""``fetch.py PROXY-PORT HOST PORT ROOTS``: one request through the proxy, verified by OpenSSL at its strictest."""

import http.client
import ssl
import sys

proxy, host, port, roots = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.verify_flags |= ssl.VERIFY_X509_STRICT
context.load_verify_locations(roots)
connection = http.client.HTTPSConnection("127.0.0.1", int(proxy), context=context, timeout=30)
connection.set_tunnel(host, int(port))
connection.request("GET", "/")
print(connection.getresponse().read().decode(), end="")
