"""What fetches packages; each asks a registry that has the one package ``marker``."""

from typing import Final

from tests.clients.client import Client

_POM: Final = """
<project>
  <modelVersion>4.0.0</modelVersion>
  <parent><groupId>test</groupId><artifactId>parent</artifactId><version>1</version><relativePath/></parent>
  <artifactId>child</artifactId><packaging>pom</packaging><name>${seen}</name>
  <repositories><repository><id>central</id><url>https://{host}/maven</url></repository></repositories>
</project>
"""
_COMPOSER: Final = """
{"repositories": [{"type": "composer", "url": "https://{host}/composer"}, {"packagist.org": false}]}
"""
_CARGO: Final = '[registries.test]\nindex = "sparse+https://{host}/cargo/"\n[net]\nretry = 0\n'
_BERRY: Final = 'npmRegistryServer: "https://{host}/npm"\nenableTelemetry: false\nhttpRetry: 0\n'

CLIENTS: Final = (
    Client(
        name="apt",
        tls="GnuTLS",
        command=("sh", "-c", "/usr/lib/apt/apt-helper -o Acquire::Retries=0 download-file {url} got && cat got"),
        version=("apt-get", "--version"),
        quick=True,
    ),
    Client(
        name="pip",
        tls="OpenSSL",
        command=(
            "{python}",
            "-m",
            "pip",
            "index",
            "versions",
            "marker",
            "--retries",
            "0",
            "--index-url",
            "https://{host}/simple/",
        ),
        version=("{python}", "-m", "pip", "--version"),
        quick=True,
        variables={"PIP_CONFIG_FILE": "/dev/null"},
    ),
    Client(
        name="uv",
        tls="rustls",
        command=("sh", "-c", "echo marker | {venv}/uv pip compile --quiet --default-index https://{host}/simple/ -"),
        version=("{venv}/uv", "--version"),
        variables={"UV_HTTP_RETRIES": "0"},
    ),
    Client(
        name="npm",
        tls="OpenSSL (Node)",
        command=("npm", "view", "marker", "version", "--fetch-retries=0", "--registry", "https://{host}/npm/"),
        version=("npm", "--version"),
        quick=True,
    ),
    Client(
        name="Yarn",
        tls="OpenSSL (Node)",
        command=("{modules}/.bin/yarn", "npm", "info", "marker", "--json"),
        version=("{modules}/.bin/yarn", "--version"),
        files={".yarnrc.yml": _BERRY, "package.json": '{"name": "test"}', "yarn.lock": ""},
    ),
    Client(
        name="pnpm",
        tls="rustls",
        command=("{modules}/@pnpm/exe.linux-x64/pnpm", "view", "marker", "version"),
        files={".npmrc": "registry=https://{host}/npm/\nfetch-retries=0\n"},
        version=("{modules}/@pnpm/exe.linux-x64/pnpm", "--version"),
    ),
    Client(
        name="Bun, as package manager",
        tls="BoringSSL",
        command=("{modules}/@oven/bun-linux-x64/bin/bun", "info", "marker", "version"),
        version=("{modules}/@oven/bun-linux-x64/bin/bun", "--version"),
        files={"bunfig.toml": '[install]\nregistry = "https://{host}/npm/"\n', "package.json": '{"name": "test"}'},
    ),
    Client(
        name="cargo",
        tls="GnuTLS (libcurl)",
        command=("/usr/bin/cargo", "-Z", "sparse-registry", "search", "marker", "--registry", "test"),
        version=("/usr/bin/cargo", "--version"),
        files={".cargo/config.toml": _CARGO},
        variables={"RUSTC_BOOTSTRAP": "1"},
    ),
    Client(
        name="RubyGems",
        tls="OpenSSL",
        command=(
            "ruby",
            "-rrubygems/remote_fetcher",
            "-e",
            "puts Gem::RemoteFetcher.fetcher.fetch_path(URI(ARGV[0] + 'index.html'))",
            "{url}",
        ),
        version=("gem", "--version"),
    ),
    Client(
        name="Bundler",
        tls="OpenSSL",
        command=("bundle", "lock", "--print"),
        version=("bundle", "--version"),
        files={"Gemfile": 'source "https://{host}/gems/"\ngem "marker"\n'},
        variables={"BUNDLE_RETRY": "0"},
    ),
    Client(
        name="Composer",
        tls="OpenSSL (PHP's streams)",
        command=("composer", "show", "--no-interaction", "--available", "marker/marker"),
        version=("composer", "--version"),
        files={"composer.json": _COMPOSER},
    ),
    Client(
        name="Maven",
        tls="Java",
        command=("mvn", "-B", "-Dmaven.repo.local={home}/repository", "validate"),
        version=("mvn", "--version"),
        files={"pom.xml": _POM},
    ),
)
