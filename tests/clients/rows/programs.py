"""Commands that people and scripts call."""

from typing import Final

from tests.clients.client import Client

_LFS: Final = "git init -q . && git -c lfs.url=https://{host}/lfs lfs locks"

CLIENTS: Final = (
    Client(name="curl", tls="OpenSSL", command=("curl", "-sS", "{url}"), version=("curl", "--version"), quick=True),
    Client(
        name="wget",
        tls="GnuTLS",
        command=("wget", "-qO-", "-t", "1", "{url}"),
        version=("wget", "--version"),
        quick=True,
    ),
    Client(
        name="wget2",
        tls="GnuTLS",
        proxy_exception="speaks TLS to an `http://` proxy; without, it works",
        command=("wget2", "-qO-", "--tries=1", "{url}"),
        version=("wget2", "--version"),
    ),
    Client(
        name="HTTPie",
        tls="OpenSSL (requests)",
        command=("http", "--ignore-stdin", "--body", "{url}"),
        version=("http", "--version"),
    ),
    Client(
        name="git",
        tls="GnuTLS (libcurl)",
        command=("git", "ls-remote", "https://{host}/repo.git"),
        version=("git", "--version"),
        quick=True,
    ),
    Client(
        name="Git LFS",
        tls="Go",
        command=("sh", "-c", _LFS),
        version=("git-lfs", "--version"),
    ),
    Client(
        name="openssl s_client",
        tls="OpenSSL",
        quick=True,
        command=(
            "sh",
            "-c",
            r"printf 'GET / HTTP/1.0\r\nHost: {host}\r\n\r\n' | "
            "openssl s_client -quiet -verify_return_error -connect {host}:443 -servername {host}",
        ),
        version=("openssl", "version"),
    ),
    Client(
        name="gnutls-cli",
        tls="GnuTLS",
        # It ends with its input, which therefore stays open until the upstream ends.
        command=(
            "sh",
            "-c",
            r"mkfifo in; gnutls-cli {host} <in & exec 3>in; printf 'GET / HTTP/1.0\r\nHost: {host}\r\n\r\n' >&3; wait",
        ),
        version=("gnutls-cli", "--version"),
    ),
    Client(
        name="socat",
        tls="OpenSSL",
        command=("sh", "-c", r"printf 'GET / HTTP/1.0\r\nHost: {host}\r\n\r\n' | socat -,ignoreeof OPENSSL:{host}:443"),
        version=("socat", "-V"),
    ),
    Client(
        name="aria2",
        tls="GnuTLS",
        command=("sh", "-c", "aria2c -q -m 1 -o got {url} && cat got"),
        version=("aria2c", "--version"),
    ),
    Client(
        name="Axel",
        tls="OpenSSL",
        note="asks the proxy itself for the `https://` page, without a tunnel",
        command=("sh", "-c", "axel -q -n 1 -o got {url} && cat got"),
        version=("axel", "--version"),
    ),
    Client(
        name="lftp",
        tls="GnuTLS",
        command=("lftp", "-c", "set net:max-retries 1; cat https://{host}/index.html"),
        version=("lftp", "--version"),
    ),
    Client(name="Lynx", tls="GnuTLS", command=("lynx", "-dump", "{url}"), version=("lynx", "--version")),
    Client(name="w3m", tls="OpenSSL", command=("w3m", "-dump", "{url}"), version=("w3m", "-version")),
    Client(name="Links", tls="OpenSSL", command=("links", "-dump", "{url}"), version=("links", "-version")),
    Client(
        name="ELinks",
        tls="GnuTLS",
        note="verifies with `connection.ssl.cert_verify`",
        command=("elinks", "-eval", "set connection.ssl.cert_verify = 1", "-dump", "{url}"),
        version=("elinks", "-version"),
    ),
    Client(
        name="cadaver",
        tls="GnuTLS (neon)",
        command=("sh", "-c", "echo quit | cadaver {url}"),
        shows="not WebDAV-enabled",
        version=("cadaver", "--version"),
    ),
    Client(
        name="Mercurial",
        tls="OpenSSL (Python)",
        command=("hg", "identify", "{url}"),
        version=("hg", "--version"),
    ),
    Client(
        name="Subversion",
        tls="OpenSSL (serf)",
        shows="does not support the HTTP/DAV protocol",
        command=("svn", "info", "--non-interactive", "{url}"),
        version=("svn", "--version"),
    ),
    Client(
        name="GitHub CLI",
        tls="Go",
        command=("gh", "api", "--hostname", "{host}", "marker"),
        version=("gh", "--version"),
        variables={"GH_ENTERPRISE_TOKEN": "none"},
    ),
    Client(
        name="Skopeo",
        tls="Go",
        command=("skopeo", "list-tags", "docker://{host}/marker"),
        version=("skopeo", "--version"),
    ),
    Client(
        name="rclone",
        tls="Go",
        command=("rclone", "--retries", "1", "--low-level-retries", "1", "copyurl", "{url}", "--stdout"),
        version=("rclone", "--version"),
    ),
    Client(
        name="AWS CLI",
        tls="OpenSSL (botocore)",
        command=(
            "{venv}/aws",
            "--endpoint-url",
            "{url}",
            "--no-sign-request",
            "s3",
            "cp",
            "s3://marker/index.html",
            "-",
        ),
        version=("{venv}/aws", "--version"),
        variables={"AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"},
    ),
    Client(
        name="s3cmd",
        tls="OpenSSL (Python)",
        command=(
            "s3cmd",
            "--access_key=none",
            "--secret_key=none",
            "--host={host}",
            "--host-bucket={host}",
            "get",
            "s3://marker/index.html",
            "-",
        ),
        version=("s3cmd", "--version"),
    ),
)
