"""The benchmark's arithmetic and parsing; what it measures is no matter of a test."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bench.client import missing
from bench.names import BODY_BYTES, CONTACTS, DOMAIN, KNOWN, contacts
from bench.processes import BenchError, cpu_ticks, on_cpu, rss_kilobytes, tree
from bench.profiles import Function, by_package, parse_profile
from bench.proxies import RULES, Contestant, Proxy, policy
from bench.results import Sample, cells, cpu_model, document, ratio
from bench.rows import Row
from sidecar.hosts import parse_host
from sidecar.policy import judge_name, judge_request, load_policy

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"


def sample(value: float, contestant: Contestant = Contestant.SIDECAR, row: Row = Row.KEEP_ALIVE) -> Sample:
    return Sample(row=row, contestant=contestant, value=value, operations=10, per_second=5.0, p50_ms=0.5)


@pytest.mark.parametrize(
    ("stat", "ticks"),
    [
        pytest.param(
            "7 (python) S 1 7 7 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0",
            127,
            id="user and system time, its own and that of children that were waited for",
        ),
        pytest.param(
            "7 (a b) c) (d) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0",
            10,
            id="the command's name may hold spaces and parentheses",
        ),
    ],
)
def test_cpu_ticks(stat: str, ticks: int) -> None:
    assert cpu_ticks(stat) == ticks


@pytest.mark.parametrize(
    ("status", "kilobytes"),
    [
        pytest.param("Name:\tpython\nVmHWM:\t 900 kB\nVmRSS:\t 800 kB\n", 800, id="what is resident now, not its peak"),
        pytest.param("Name:\tpython\nState:\tZ (zombie)\n", 0, id="a process that has ended has none"),
    ],
)
def test_rss_kilobytes(status: str, kilobytes: int) -> None:
    assert rss_kilobytes(status) == kilobytes


def test_the_tree_of_a_process_has_its_grandchildren() -> None:
    inner = f"import subprocess, sys; subprocess.run([{sys.executable!r}, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", inner], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"1\n"

        pids = tree(process.pid)

        assert len(pids) == 2 and pids[0] == process.pid
        process.communicate(b"\n")


def test_what_is_started_on_a_cpu_runs_there_and_nothing_else() -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)

    with on_cpu(cpu):
        inside = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"])

    assert inside.decode().strip() == str({cpu})
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        pytest.param(b"HTT", 1, id="the beginning of a status line may become an answer"),
        pytest.param(HEAD[:-2], 1, id="a head that isn't complete may become an answer"),
        pytest.param(HEAD, BODY_BYTES, id="behind the head the whole body is missing"),
        pytest.param(HEAD + b"x" * BODY_BYTES, 0, id="a complete answer misses nothing"),
        pytest.param(HEAD + b"x" * (BODY_BYTES + 1), -1, id="an answer that is too long is wrong"),
        pytest.param(b"HTTP/1.1 403 Forbidden\r\n", -1, id="another status is wrong"),
        pytest.param(b"HTTP/1.0 200 OK\r\n", -1, id="another version is wrong"),
    ],
)
def test_missing(answer: bytes, left: int) -> None:
    assert missing(answer) == left


def test_rounds_become_medians_with_their_range() -> None:
    cell = cells([sample(30), sample(10), sample(500)])[Row.KEEP_ALIVE][Contestant.SIDECAR]

    assert (cell.median, cell.least, cell.most, cell.rounds) == (30, 10, 500, 3)


def test_the_ratio_says_how_many_times_cheaper_the_sidecar_is() -> None:
    row = cells([sample(200), sample(500, Contestant.MITMDUMP)])[Row.KEEP_ALIVE]

    assert ratio(row) == 2.5


def test_without_both_contestants_there_is_no_ratio() -> None:
    assert ratio(cells([sample(200)])[Row.KEEP_ALIVE]) is None


def test_the_document_names_its_conditions_but_not_this_machine() -> None:
    samples = [sample(200), sample(500, Contestant.MITMDUMP), sample(95, row=Row.IDLE_RSS)]

    text = json.dumps(document(samples, upstream="nginx/1.22.1", rounds=5, seconds=2.0, pinned=True))

    made = json.loads(text)
    assert made["rows"]["keep-alive"]["ratio"] == 2.5
    assert made["rows"]["keep-alive"]["sidecar"]["median"] == 200
    assert made["rows"]["idle-rss"]["unit"] == "MB"
    assert made["versions"]["upstream"] == "nginx/1.22.1"
    assert made["conditions"]["rounds"] == 5
    assert platform.node() not in text and str(Path.cwd()) not in text


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        pytest.param("processor\t: 0\nmodel name\t: Fast CPU\nprocessor\t: 1\n", "Fast CPU", id="the first model name"),
        pytest.param("processor\t: 0\n", platform.machine(), id="the architecture where the model has no name"),
    ],
)
def test_cpu_model(cpuinfo: str, model: str) -> None:
    assert cpu_model(cpuinfo) == model


def test_the_policy_has_its_rules_and_the_last_of_them_lets_the_load_through(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy(8443))

    loaded = load_policy(file)

    assert len(loaded.rules) == RULES
    for name in (KNOWN, *contacts()):
        decision = judge_request(loaded, parse_host(name), 8443, "GET", "/1k")
        assert decision.allowed and decision.rule is loaded.rules[-1]
    assert not judge_name(loaded, parse_host(f"a.b.{DOMAIN}"), 8443).allowed


def test_a_process_meets_fewer_hosts_than_the_stock_certificate_store_holds() -> None:
    names = {KNOWN, *contacts()}

    assert len(names) == CONTACTS + 1 <= 100


def test_requests_without_a_record_fail_the_run(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"event":"request_allowed"}\n{"event":"request_closed"}\n')
    log = tmp_path / "log.txt"
    log.write_text("what it said itself\n")
    proxy = Proxy(pid=1, port=1, ca_file=tmp_path, log=log, events=events)

    proxy.check_events(1)
    with pytest.raises(BenchError, match=r"answered 2 requests and recorded the end of 1\nwhat it said itself"):
        proxy.check_events(2)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        pytest.param("/x/sidecar/ledger.py", "sidecar/ledger.py:7 f", id="a module of ours"),
        pytest.param("/x/addons/gate.py", "addons/gate.py:7 f", id="an addon of ours"),
        pytest.param(
            "/x/lib/python3.13/site-packages/mitmproxy/proxy/layer.py",
            "mitmproxy/proxy/layer.py:7 f",
            id="a dependency",
        ),
        pytest.param(
            "/sidecar/lib/python3.13/site-packages/mitmproxy/addons/block.py",
            "mitmproxy/addons/block.py:7 f",
            id="a dependency stays one below a folder that is called as ours",
        ),
        pytest.param("/x/lib/python3.13/asyncio/locks.py", "asyncio/locks.py:7 f", id="the standard library"),
    ],
)
def test_a_function_is_named_from_its_package_on(file: str, name: str) -> None:
    assert str(Function(file, 7, "f", 1, 1)) == name


def test_own_time_is_summed_by_package_the_dearest_first() -> None:
    functions = parse_profile(
        json.dumps(
            [
                ["/x/sidecar/ledger.py", 1, "a", 2, 9],
                ["/x/site-packages/mitmproxy/flow.py", 1, "b", 5, 5],
                ["/x/sidecar/hosts.py", 1, "c", 1, 1],
            ]
        )
    )

    assert list(by_package(functions).items()) == [("mitmproxy", 5), ("sidecar", 3)]


@pytest.mark.live
@pytest.mark.parametrize("options", [["--rounds", "1"], ["--profile"]], ids=["the comparison", "the profile"])
def test_it_runs_through_against_live_processes(options: list[str]) -> None:
    command = [sys.executable, "-m", "bench", "--only", "keep-alive", "--seconds", "0.3", *options]

    result = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)

    assert result.returncode == 0, result.stderr
    assert "kept-alive" in result.stdout
    assert ("ratio" if "--rounds" in options else "sidecar/cli/run.py") in result.stdout
