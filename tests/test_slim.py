"""Start and idle memory: what isn't used isn't imported, and nothing that was put off is missing to who asks for it."""

import subprocess
import sys

import pytest
from mitmproxy import version

from sidecar.runtime import slim

STARTED = """
import sys
import sidecar.cli.run
from sidecar.runtime.slim import slim
slim()
import addons.protocol, sidecar.control.service, sidecar.runtime.engine, sidecar.runtime.reload
import sidecar.runtime.rotation, sidecar.runtime.transparent
"""


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", STARTED + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_put_off_was_read_in_this_mitmproxy() -> None:
    assert version.VERSION == slim.KNOWN, (
        "another mitmproxy: see whether layers/__init__.py and layers/http/__init__.py in mitmproxy/proxy still only "
        "name what sidecar/runtime/slim.py stands in for, run this file with KNOWN changed, and measure start and RSS"
    )


def test_a_running_sidecar_has_not_imported_what_it_does_not_use() -> None:
    unused = {"flask", "ldap3", "aioquic", "aiohttp", "structlog", "rich", "prometheus_client", "jinja2"}

    found = python("print(*{name.partition('.')[0] for name in sys.modules})").split()

    assert not unused & set(found)
    assert {"mitmproxy", "h2", "wsproto", "pydantic"} <= set(found), "the scan sees what is there"


# From narrow to wide: what a line makes whole is whole for the next.
ASKED = """
from mitmproxy import http
answer = http.Response.make(200, b"x" * 99, {"content-encoding": "zstd"})
assert len(answer.raw_content) < 60 and answer.content == b"x" * 99
from mitmproxy.command import unquote
assert unquote("'a'") == "a"
from mitmproxy import command_lexer
assert len(command_lexer.expr.parse_string("a b")) == 3
from mitmproxy.utils import emoji
assert emoji.emoji[":grapes:"]
from mitmproxy.proxy import layers
assert layers.quic.QuicStreamDataReceived.__dataclass_fields__
from mitmproxy.addons import tlsconfig
tlsconfig.TlsConfig()
from mitmproxy.addons import default_addons
assert len(default_addons()) > 30
import mitmproxy.tools.dump, mitmproxy.tools.main
"""


def test_who_asks_for_what_was_put_off_gets_all_of_it() -> None:
    python(ASKED)


@pytest.mark.parametrize("first", ["slim.VERSION = '12.9.0'", "import mitmproxy.http"])
def test_otherwise_the_stock_imports_are_left_alone(first: str) -> None:
    code = f"""
import sys
from sidecar.runtime import slim
{first}
slim.slim()
from mitmproxy.addons import proxyserver
assert not isinstance(sys.modules["mitmproxy.addons"], slim.PutOff)
assert "aioquic" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_only_the_subcommand_that_is_asked_for_is_imported() -> None:
    code = "import sys; from sidecar.cli import main; sys.argv = ['sidecar', 'run', '--help']\ntry: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"  # noqa: E501

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "sidecar.cli.run" in done.stderr.split()
    assert not {"sidecar.cli.exec", "sidecar.cli.inject", "aiohttp", "mitmproxy"} & set(done.stderr.split())
