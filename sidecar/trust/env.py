"""Which variable tells which client what to trust."""

import re
from pathlib import PurePath
from typing import Final
from urllib.parse import urlsplit

from sidecar.trust.errors import TrustError
from sidecar.trust.keystore import PASSWORD

CA, BUNDLE, ENV = "ca.pem", "bundle.pem", "env"
PKCS12, JKS = "truststore.p12", "truststore.jks"
JAVA: Final = "JAVA_TOOL_OPTIONS"  # read by every Java virtual machine, Maven's and Gradle's among them

# These clients add the file to the roots that they bring along. Deno adds too, but is fine with either.
_ADDS = ("NODE_EXTRA_CA_CERTS",)  # Node, npm, Yarn, pnpm, Bun, Electron; Deno 2.8

# These take the file instead of their own roots, so it must hold the public ones as well.
_REPLACES = (
    "SSL_CERT_FILE",  # OpenSSL and what is built on it: Python's ssl, httpx, Ruby, Perl, PHP; Go, .NET, Rust, uv
    "REQUESTS_CA_BUNDLE",  # requests, pip, conda, Azure's command line
    "CURL_CA_BUNDLE",  # curl's command, requests
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "AWS_CA_BUNDLE",  # AWS's command line, botocore
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "NPM_CONFIG_CAFILE",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",  # gRPC's C core: C++, Python, Ruby, PHP, Node
    "BUNDLE_SSL_CA_CERT",  # Ruby's Bundler
    "COMPOSER_CAFILE",
    "PERL_LWP_SSL_CA_FILE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",  # gcloud
    "HTTPLIB2_CA_CERTS",  # httplib2, under Google's Python clients
    "WEBSOCKET_CLIENT_CA_BUNDLE",  # Python's websocket-client
    "NIX_SSL_CERT_FILE",
    "HEX_CACERTS_PATH",  # Elixir's and Erlang's package manager
    "JULIA_SSL_CA_ROOTS_PATH",
    "SYSTEM_CERTIFICATE_PATH",  # Haskell
)

# Read by uv only where SSL_CERT_FILE is unset. Its older name, UV_NATIVE_TLS, makes current versions complain.
_SWITCHES = {"UV_SYSTEM_CERTS": "true"}


def pem_variables(mount: PurePath) -> dict[str, str]:
    """
    Name every variable that leads a client to a file in PEM, for a workload that finds the trust folder at *mount*.

    ``SSL_CERT_DIR`` isn't among them: it would replace the image's own directory, and what its owner added there.

    Raises:
        TrustError: *mount* isn't absolute; a workload's working directory can be any.
    """
    if not mount.is_absolute():
        raise TrustError(
            f"{str(mount)!r} is relative; write the absolute path where the workload finds the trust folder"
        )
    adds = dict.fromkeys(_ADDS, str(mount / CA))
    replaces = dict.fromkeys(_REPLACES, str(mount / BUNDLE))
    return adds | replaces | _SWITCHES


def env_variables(mount: PurePath, *, java: str = "", password: str | None = PASSWORD) -> dict[str, str]:
    """
    All variables: those that name files in PEM, and Java's options.

    Args:
        mount: Where the workload finds the trust folder.
        java: What the user has in ``JAVA_TOOL_OPTIONS``; it is appended to.
        password: Of the keystores; None where they have none.

    Raises:
        TrustError: *mount* isn't absolute, or Java couldn't read it.
    """
    return pem_variables(mount) | {JAVA: with_java_options(java, java_options(mount, password))}


def java_options(mount: PurePath, password: str | None = PASSWORD) -> str:
    """
    The options that name Java's trust store.

    Raises:
        TrustError: The path holds a quotation mark or a line break.
    """
    store = f"-Djavax.net.ssl.trustStore={mount / PKCS12}"
    if re.search(r"""["'\0\r\n]""", store):
        raise TrustError(f"{str(mount)!r} can't be written into {JAVA}; name a folder without quotation marks")
    if re.search(r"\s", store):
        store = f'"{store}"'
    options = [store, "-Djavax.net.ssl.trustStoreType=PKCS12"]
    return " ".join([*options, *([] if password is None else [f"-Djavax.net.ssl.trustStorePassword={password}"])])


def java_proxy_options(proxy: str, no_proxy: str = "") -> str:
    """
    The options that lead Java's clients through a proxy: they read no other variable.

    Args:
        proxy: ``http://HOST:PORT``.
        no_proxy: Hosts to be reached without it, separated by commas. Java's own exceptions, loopback among them, hold
            only where there are others.
    """
    url = urlsplit(proxy)
    options = [
        f"-D{scheme}.proxy{what}"
        for scheme in ("http", "https")
        for what in (f"Host={url.hostname}", f"Port={url.port}")
    ]
    return " ".join([*options, f"-Dhttp.nonProxyHosts={no_proxy.replace(',', '|')}"])


def with_java_options(present: str, options: str) -> str:
    """Append options to what is there; once: what has them already stays as it is. Of two the later one counts."""
    if f" {options} " in f" {present} ":
        return present
    return f"{present} {options}".lstrip()


def env_file(mount: PurePath) -> bytes:
    """
    Write the variables as ``KEY=VALUE`` lines, for ``docker run --env-file`` and for ``set -a; . env`` alike.

    The one takes quotation marks as part of a value and the other ends a value at a space, so Java's options are only
    the store here: it finds out the type by itself, and opens the store without its password.

    Raises:
        TrustError: *mount* is relative, or holds characters that a shell and Docker would read differently.
    """
    text = str(mount)
    if not all(c.isalnum() or c in "/._-+@%:," for c in text):
        raise TrustError(
            f"{text!r} can't be written into {ENV}; name another folder, or with --trust-mount the path "
            "in the workload, in letters, digits and any of / . _ - + @ % : ,"
        )
    variables = pem_variables(mount) | {JAVA: f"-Djavax.net.ssl.trustStore={text}/{PKCS12}"}
    return "".join(f"{key}={value}\n" for key, value in variables.items()).encode()
