"""Which variable tells which client what to trust."""

from pathlib import PurePath

from sidecar.errors import SidecarError

CA, BUNDLE, ENV = "ca.pem", "bundle.pem", "env"

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


class TrustError(SidecarError):
    """The trust files can't be made as asked."""


def env_variables(mount: PurePath) -> dict[str, str]:
    """
    Name every variable that a client might read, for a workload that finds the trust folder at *mount*.

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


def env_file(mount: PurePath) -> bytes:
    """
    Write the variables as ``KEY=VALUE`` lines: for ``docker run --env-file`` and for ``set -a; . env``.

    Raises:
        TrustError: *mount* is relative, or holds characters that a shell and Docker would read differently.
    """
    text = str(mount)
    if not all(c.isalnum() or c in "/._-+@%:," for c in text):
        raise TrustError(
            f"{text!r} can't be written into {ENV}; name another folder, or with --trust-mount the path "
            "in the workload, in letters, digits and any of / . _ - + @ % : ,"
        )
    return "".join(f"{key}={value}\n" for key, value in env_variables(mount).items()).encode()
