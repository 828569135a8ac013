"""The clients that the doctor knows: how each makes one request, which variables it reads, where else it looks."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from sidecar.trust import scripts


class Store(StrEnum):
    """Where a client looks that no variable has told."""

    SYSTEM = "the system's file"
    OPENSSL = "OpenSSL's default file"  # the system's, where OpenSSL is the distribution's
    OWN = "its own roots"
    JAVA = "Java's keystore"
    NSS = "the user's NSS database"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """
    A program, or a library of a language.

    Attributes:
        name: What ``--only`` takes.
        program: Looked for on ``PATH``, or at its absolute path.
        request: Its arguments. ``{url}``, ``{host}``, ``{proxy}`` and the like are filled in; one that is then empty
            is left out.
        variables: Those that name a file; of several that are set the first one counts.
        store: Where it looks where none is set.
        adds: Whether a variable's file is added to the store, instead of being read in its place.
        proof: Found in its output once TLS is completed, though it may end with an error: the answer isn't what a
            package index or a repository would say. Without one, exit code 0 is the proof.
        absent: Found in its output where the library isn't there.
        reads: In its output, the file that it has read.
        settings: Variables that keep its caches out of the user's folders, or it from asking twice.
    """

    name: str
    program: str
    request: tuple[str, ...]
    variables: tuple[str, ...] = ()
    store: Store = Store.SYSTEM
    adds: bool = False
    proof: str = "answered_by"
    absent: str = ""
    reads: str = ""
    settings: tuple[tuple[str, str], ...] = ()


# A path that looks like a package's, so that pip and uv fetch it without asking an index.
_WHEEL: Final = "{url}doctor-1.0-py3-none-any.whl"
_PYTHON: Final = {
    "urllib": (("SSL_CERT_FILE",), Store.OPENSSL),
    "requests": (("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), Store.OWN),
    "httpx": (("SSL_CERT_FILE",), Store.OWN),
    "aiohttp": (("SSL_CERT_FILE",), Store.OPENSSL),
    "urllib3": (("SSL_CERT_FILE",), Store.OPENSSL),
    "botocore": (("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), Store.OWN),
}
_PIP: Final = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

# Run by each Python on PATH that has the module.
PYTHON_CLIENTS: Final = (
    *(
        Client(
            name=module,
            program="python3",
            request=("-c", scripts.PYTHON[module], "{url}", "{proxy}"),
            variables=variables,
            store=store,
        )
        for module, (variables, store) in _PYTHON.items()
    ),
    Client(
        name="pip",
        program="python3",
        request=(
            *("-m", "pip", "download", "--no-deps", "--no-input", "--no-cache-dir", "--disable-pip-version-check"),
            *("--retries", "0", "--dest", "{folder}/pip", _WHEEL),
        ),
        variables=_PIP,
        store=Store.OWN,
        proof="is invalid|has an invalid wheel|BadZipFile",
    ),
)
PYTHONS: Final = r"python3?|python3\.[0-9]+|pypy3?"  # whole names of interpreters

# Run by each Java on PATH, in JAVA_HOME and where distributions put it.
JAVA: Final = Client(
    name="java",
    program="java",
    request=("-cp", "{folder}", "Probe", "{url}", "{proxy_host}", "{proxy_port}"),
    variables=(),
    store=Store.JAVA,
)
JAVA_FOLDERS: Final = ("usr/lib/jvm/*", "opt/java/*", "opt/*jdk*", "usr/local/openjdk-*")  # below /

CLIENTS: Final = (
    Client(
        name="curl",
        program="curl",
        request=("-sSv", "{url}"),
        variables=("CURL_CA_BUNDLE", "SSL_CERT_FILE"),
        reads=r"CAfile: (/\S+)",
    ),
    Client(name="wget", program="wget", request=("-nv", "-O", "-", "--tries=1", "{url}")),
    Client(name="wget2", program="wget2", request=("-O", "-", "--tries=1", "{url}")),
    Client(
        name="git",
        program="git",
        request=("ls-remote", "{url}"),
        variables=("GIT_SSL_CAINFO",),
        proof="not valid: is this a git repository",
    ),
    Client(
        name="uv",
        program="uv",
        request=("pip", "install", "--no-cache", "--no-deps", "--target", "{folder}/uv", f"doctor @ {_WHEEL}"),
        variables=("SSL_CERT_FILE",),
        store=Store.OWN,
        proof="invalid package format|Failed to read from zip file|not a valid (zip|wheel)",
    ),
    Client(
        name="node",
        program="node",
        request=("-e", scripts.NODE_HTTPS, "{url}", "{proxy}"),
        variables=("NODE_EXTRA_CA_CERTS",),
        store=Store.OWN,
        adds=True,
    ),
    Client(
        name="node-fetch",
        program="node",
        request=("-e", scripts.NODE_FETCH, "{url}", "{proxy}"),
        variables=("NODE_EXTRA_CA_CERTS",),
        store=Store.OWN,
        adds=True,
        absent="fetch is not defined",
    ),
    Client(
        name="npm",
        program="npm",
        request=("ping", "--registry", "{url}", "--fetch-retries=0", "--loglevel=error"),
        variables=("NPM_CONFIG_CAFILE", "npm_config_cafile", "NODE_EXTRA_CA_CERTS"),
        store=Store.OWN,
        proof="",
        settings=(("npm_config_cache", "{folder}/npm"), ("npm_config_update_notifier", "false")),
    ),
    Client(
        name="bun",
        program="bun",
        request=("-e", scripts.FETCH),
        variables=("NODE_EXTRA_CA_CERTS",),
        store=Store.OWN,
        adds=True,
    ),
    Client(
        name="deno",
        program="deno",
        request=("eval", scripts.FETCH),
        variables=("DENO_CERT", "NODE_EXTRA_CA_CERTS"),
        store=Store.OWN,
        adds=True,
        settings=(("DENO_DIR", "{folder}/deno"), ("DENO_NO_UPDATE_CHECK", "1")),
    ),
    # The go command itself: what it trusts is what every program in Go trusts.
    Client(
        name="go",
        program="go",
        request=("list", "-m", "-versions", "doctor.invalid/x"),
        variables=("SSL_CERT_FILE",),
        proof="",
        settings=(
            ("GOPROXY", "{url}"),
            ("GOFLAGS", "-mod=mod"),
            ("GOPRIVATE", ""),
            ("GONOPROXY", "none"),
            ("GONOSUMDB", "*"),
            ("GOTOOLCHAIN", "local"),
            ("GOWORK", "off"),
            ("GOPATH", "{folder}/go"),
            ("GOMODCACHE", "{folder}/go"),
            ("GOCACHE", "{folder}/gocache"),
        ),
    ),
    Client(
        name="ruby",
        program="ruby",
        request=("-e", scripts.RUBY, "{url}", "{proxy}"),
        variables=("SSL_CERT_FILE",),
        store=Store.OPENSSL,
        absent="cannot load such file",
    ),
    Client(
        name="php",
        program="php",
        request=("-r", scripts.PHP_STREAMS, "--", "{url}", "{proxy}"),
        variables=("SSL_CERT_FILE",),
        store=Store.OPENSSL,
        absent='wrapper "https"',
    ),
    Client(
        name="php-curl",
        program="php",
        request=("-r", scripts.PHP_CURL, "--", "{url}"),
        absent=r"undefined function curl_init",
    ),
    Client(
        name="perl-lwp",
        program="perl",
        request=("-e", scripts.PERL_LWP, "{url}"),
        variables=("PERL_LWP_SSL_CA_FILE", "HTTPS_CA_FILE", "SSL_CERT_FILE"),
        store=Store.OPENSSL,
        absent="Can't locate|LWP::Protocol::https not installed",
    ),
    Client(
        name="perl-tiny",
        program="perl",
        request=("-e", scripts.PERL_TINY, "{url}"),
        variables=("SSL_CERT_FILE",),
        store=Store.OPENSSL,
        absent="Can't locate|must be installed for",
    ),
    Client(
        name="powershell",
        program="pwsh",
        request=("-NoLogo", "-NoProfile", "-Command", "(Invoke-WebRequest '{url}').Content"),
        variables=("SSL_CERT_FILE",),
        store=Store.OPENSSL,
    ),
    Client(
        name="dotnet",
        program="dotnet",
        request=("fsi", "--quiet", "{folder}/probe.fsx", "{url}"),
        variables=("SSL_CERT_FILE",),
        store=Store.OPENSSL,
        absent="No .NET SDKs were found|SDKs? (was|were) not found|does not exist",
        settings=(("DOTNET_NOLOGO", "1"), ("DOTNET_CLI_TELEMETRY_OPTOUT", "1"), ("DOTNET_CLI_HOME", "{folder}")),
    ),
    # A dependency by git, which every version of cargo fetches with its own TLS; what it is answered is no repository.
    Client(
        name="cargo",
        program="cargo",
        request=("install", "--git", "{url}doctor", "--root", "{folder}/cargo", "doctor"),
        variables=("CARGO_HTTP_CAINFO", "SSL_CERT_FILE"),
        proof="expected a Content-Type header|not valid: is this a git repository",
    ),
    Client(
        name="apt",
        program="/usr/lib/apt/apt-helper",
        # It would become the user _apt, for which a locked-down container has no capability.
        request=("-o", "APT::Sandbox::User=root", "download-file", "{url}", "{folder}/apt"),
        proof="^Get:1 .*|Fetched [0-9]",
    ),
    *(
        Client(
            name="chromium",
            program=program,
            request=(
                *("--headless", "{no_sandbox}", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--user-data-dir={folder}/chromium", "{pac}"),
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}, EXCLUDE {proxy_host}",
                *("--dump-dom", "{url}"),
            ),
            store=Store.NSS,
        )
        for program in ("chromium", "chromium-browser", "google-chrome")
    ),
)

DOTNET: Final = """
let client = new System.Net.Http.HttpClient()
printfn "%s" (client.GetStringAsync(fsi.CommandLineArgs.[1]).Result)
"""

NAMES: Final = frozenset(client.name for client in (*CLIENTS, *PYTHON_CLIENTS, JAVA))
