"""Squid with ssl_bump, as one configures it to intercept: certificates by security_file_certgen, an access log."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from bench.names import DENIED, KNOWN, PASSED, contacts
from bench.processes import BenchError
from bench.upstream import Upstream

CERTGEN = Path("/usr/lib/squid/security_file_certgen")
USER = "proxy"  # Debian's, for Squid; it doesn't run as root

_CONFIG = """
http_port 127.0.0.1:{port} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=16MB \
tls-cert={folder}/ca.pem tls-key={folder}/ca-key.pem
sslcrtd_program {certgen} -s {folder}/certificates -M 16MB
sslcrtd_children 5 startup=1 idle=1
acl step1 at_step SslBump1
acl passed ssl::server_name {passed}
acl denied urlpath_regex ^{denied}$
acl upstreams port {ports}
ssl_bump peek step1
ssl_bump splice passed
ssl_bump bump all
tls_outgoing_options cafile={root} default-ca=off min-version=1.3
http_access deny denied
http_access deny !upstreams
http_access allow all
http_upgrade_request_protocols websocket allow all
hosts_file {folder}/hosts
cache deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
pid_filename none
coredump_dir none
visible_hostname bench
shutdown_lifetime 1 seconds
max_filedescriptors 16384
request_body_max_size 0
"""


def installed() -> str | None:
    return shutil.which("squid", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin") if CERTGEN.exists() else None


def version() -> str:
    """``5.7``; empty where there is none."""
    if not (squid := installed()):
        return ""
    text = subprocess.run([squid, "-v"], capture_output=True, text=True, check=True).stdout
    return text.partition("Version ")[2].split()[0]


def command(folder: Path, upstream: Upstream, port: int, ca: Path, number: int) -> list[str]:
    """
    The command line, with all that it needs in *folder*.

    Raises:
        BenchError: There is no Squid with ssl_bump.
    """
    if not (squid := installed()):
        raise BenchError("Squid with ssl_bump isn't installed (apt install squid-openssl)")
    for file in ("ca.pem", "ca-key.pem"):
        shutil.copy(ca / file, folder / file)
    text = _CONFIG.format(
        port=port, folder=folder, certgen=CERTGEN, passed=PASSED, denied=DENIED,
        ports=f"{upstream.port} {upstream.live_port}", root=upstream.root,
    )  # fmt: skip
    (folder / "squid.conf").write_text(text)
    names = (KNOWN, PASSED, *contacts(number))
    (folder / "hosts").write_text("".join(f"{upstream.address} {name}\n" for name in names))
    subprocess.run([CERTGEN, "-c", "-s", folder / "certificates", "-M", "16MB"], check=True, capture_output=True)
    run = [squid, "-N", "-f", str(folder / "squid.conf")]
    if os.geteuid() != 0:
        return run
    user = pwd.getpwnam(USER)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user.pw_uid, user.pw_gid)
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", *run]
