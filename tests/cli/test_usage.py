"""A mistyped command line, variable or value is answered with one line that says what to write."""

import subprocess
import sys

import pytest
import typer.main
from typer.core import TyperGroup
from typer.testing import CliRunner, Result

from sidecar.cli import app, main
from sidecar.cli.options import parse_listen, words
from sidecar.cli.usage import unknown_variables
from sidecar.errors import SidecarError
from sidecar.runtime.session import parse_resolve

GROUP = typer.main.get_command(app)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(["rnu"], "no such command 'rnu'. Did you mean 'run'?", id="a mistyped subcommand"),
        pytest.param(
            ["run", "--polcy", "p"], "no such option: --polcy; did you mean --policy?", id="a mistyped option"
        ),
        pytest.param(
            ["run", "--drain-seconds", "5s"],
            "--drain-seconds '5s' (or EGRESS_DRAIN_SECONDS): should be a valid number; see sidecar run --help",
            id="the value that is wrong stands in the line",
        ),
        pytest.param(
            ["bootstrap"],
            "--common-name is missing (or EGRESS_COMMON_NAME); see sidecar bootstrap --help",
            id="an option that is needed",
        ),
        pytest.param(
            ["trust", "layout", "rhell", "--out", "x"],
            "invalid value for 'family': 'rhell' is not one of 'debian', 'alpine', 'rhel', 'distroless'; "
            "see sidecar trust layout --help",
            id="an argument that is none of several",
        ),
        pytest.param(["exec"], "missing argument 'COMMAND'; see sidecar exec --help", id="a missing argument"),
        pytest.param(
            ["run", "--dns-upstream", "192.0.2.53"],
            "--dns-upstream says something of --transparent, which is missing; give both or neither",
            id="an option without effect is not silently ignored",
        ),
        pytest.param(
            ["run", "--limit", "head_byte=1"],
            "--limit 'head_byte=1': there is no limit 'head_byte'; did you mean head_bytes?",
            id="a mistyped limit",
        ),
        pytest.param(
            ["exec", "--limit", "head_bytes=1", "--", "true"],
            "--limit 'head_bytes=1': write a number from 4096 to 16777216",
            id="a limit out of range",
        ),
        pytest.param(
            ["run", "--control-socket-mode", "0660"],
            "--control-socket-mode says something of --control-socket, which is missing; give both or neither",
            id="a mode of no socket",
        ),
        pytest.param(
            ["netfilter", "--dry-run", "--exclude-port", "70000"],
            "--exclude-port 70000: not a port; write one from 1 to 65535",
            id="a port out of range names its option",
        ),
        pytest.param(
            ["fence", "check", "--denied-name", "a b"],
            "--denied-name: 'a b' is not a host name; write one such as 'egress-canary.example'",
            id="a name that is none names its option",
        ),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_2(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sidecar", *arguments])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"sidecar: {line}\n"


def test_without_a_subcommand_there_is_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sidecar"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("Usage: ")


@pytest.mark.parametrize(
    ("variable", "value", "warning"),
    [
        pytest.param(
            "EGRESS_TRANPARENT", "1", ["EGRESS_TRANPARENT is ignored: did you mean EGRESS_TRANSPARENT?"], id="a typo"
        ),
        pytest.param("EGRESS_ROOM", "1", ["EGRESS_ROOM is ignored: no subcommand reads it"], id="nothing like it"),
        pytest.param("EGRESS_EXPECT_ALLOWED", "a.test:1", [], id="another subcommand's is known"),
        pytest.param("EGRESS_SERVICE_HOST", "10.0.0.1", [], id="a Kubernetes Service's host"),
        pytest.param("EGRESS_GATEWAY_SERVICE_PORT_HTTPS", "443", [], id="a Kubernetes Service's named port"),
        pytest.param("EGRESS_PORT", "tcp://10.0.0.1:443", [], id="a Kubernetes Service's link"),
        pytest.param("EGRESS_PORT_443_TCP_ADDR", "10.0.0.1", [], id="a part of such a link"),
        pytest.param("PATH", "/bin", [], id="not ours"),
    ],
)
def test_a_variable_that_nothing_reads_gets_a_warning(variable: str, value: str, warning: list[str]) -> None:
    assert isinstance(GROUP, TyperGroup)

    assert list(unknown_variables({variable: value}, GROUP)) == warning


def test_the_warning_reaches_the_user() -> None:
    done = CliRunner().invoke(app, ["policy", "check", "-"], input="version: 1\n", env={"EGRESS_POLCY": "p.yaml"})

    assert done.exit_code == 0
    assert "sidecar: warning: EGRESS_POLCY is ignored: did you mean EGRESS_POLICY?" in done.stderr


LINK = "tcp://10.96.0.7:53"


def plan_of_netfilter(**variables: str) -> Result:
    return CliRunner().invoke(app, ["netfilter", "--dry-run"], env=variables)


@pytest.mark.parametrize("variable", ["EGRESS_DNS_PORT", "EGRESS_CONTROL_PORT", "EGRESS_EXCLUDE_PORT"])
def test_what_kubernetes_sets_for_a_service_is_no_setting(variable: str) -> None:
    done = plan_of_netfilter(**{variable: LINK})

    assert (done.exit_code, done.stdout) == (0, plan_of_netfilter().stdout)
    service = variable.removesuffix("_PORT").lower().replace("_", "-")
    assert f"{variable} is ignored: {LINK!r} is what Kubernetes sets for a Service named {service};" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_is_still_a_setting_and_a_wrong_one_an_error() -> None:
    assert "15353" in plan_of_netfilter(EGRESS_DNS_PORT="15353").stdout
    assert plan_of_netfilter(EGRESS_DNS_PORT="http://10.96.0.7:53").exit_code == 2


@pytest.mark.parametrize(
    "path", [["run"], ["exec"], ["bootstrap"], ["issue"], ["netfilter"], ["fence", "check"]], ids=" ".join
)
def test_help_in_80_columns_cuts_no_option_and_no_variable_off(path: list[str]) -> None:
    command = GROUP
    for word in path:
        assert isinstance(command, TyperGroup)
        command = command.commands[word]

    text = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).stdout

    assert max(map(len, text.splitlines())) <= 80
    for parameter in command.params:
        variable = getattr(parameter, "envvar", None)
        assert not parameter.opts[0].startswith("--") or parameter.opts[0] in text
        assert all(name in text for name in ([variable] if isinstance(variable, str) else variable or ()))


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(["a", "b"], id="repeated"),
        pytest.param(["a,b"], id="by commas"),
        pytest.param(["a b"], id="by spaces"),
        pytest.param(["a, b"], id="by both"),
    ],
)
def test_several_values(values: list[str]) -> None:
    assert words(values) == ["a", "b"]


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_pinned_name_has_a_port_that_exists(port: str) -> None:
    with pytest.raises(SidecarError, match="--resolve"):
        parse_resolve([f"example.com:{port}:192.0.2.1"])


@pytest.mark.parametrize("text", ["14101", "foo:1", "1.2.3:80", "::1:80", "127.0.0.1:99999", ":80"])
def test_a_listener_is_an_address_and_a_port(text: str) -> None:
    with pytest.raises(SidecarError, match="--listen"):
        parse_listen(text)


def test_nothing_heavy_is_imported_for_help() -> None:
    code = "import sys, sidecar.cli; sys.exit('mitmproxy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
