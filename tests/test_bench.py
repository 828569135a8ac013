"""The benchmark's arithmetic, parsing and peers; what it measures is no matter of a test."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hpack import Decoder

from bench import squid, verdict
from bench.client import quantile, times
from bench.http2 import frame, request_block
from bench.names import BODY_BYTES, CONTACTS, DENIED, DOMAIN, KNOWN, NAMES, PASSED, SMALL, contacts
from bench.pages import PAGES, ROOT, filled
from bench.plan import Plan
from bench.plots import plots
from bench.processes import BenchError, cpu_microseconds, kilobytes, on_cpu, tree, waited_ticks
from bench.profiles import Function, by_package, parse_profile
from bench.proxies import RULES, Contestant, Proxy, policy, takes_part
from bench.results import LATEST, cells, cpu_model, document, from_document, ratio
from bench.rows import Row
from bench.samples import Sample
from bench.soak_judge import Look, Tally, problems
from bench.websocket import accept_key, client_frame, echo
from bench.wire import missing
from sidecar.hosts import parse_host
from sidecar.policy import judge_name, judge_request, load_policy

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1024\r\n\r\n"


def sample(value: float, contestant: Contestant = Contestant.SIDECAR, row: Row = Row.KEEP_ALIVE) -> Sample:
    return Sample(row=row, contestant=contestant, value=value, per_second=5.0, p50_ms=0.5)


@pytest.mark.parametrize(
    ("stat", "ticks"),
    [
        pytest.param(
            "7 (python) S 1 7 7 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0",
            7,
            id="user and system time of children that were waited for",
        ),
        pytest.param(
            "7 (a b) c) (d) S 1 7 7 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0",
            7,
            id="the command's name may hold spaces and parentheses",
        ),
    ],
)
def test_waited_ticks(stat: str, ticks: int) -> None:
    assert waited_ticks(stat) == ticks


def test_the_cpu_time_of_a_tree_grows_with_what_its_children_do() -> None:
    before = cpu_microseconds(os.getpid())

    burn = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", burn], check=True)

    assert cpu_microseconds(os.getpid()) - before > 180_000


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param("Name:\tpython\nVmHWM:\t 900 kB\nVmRSS:\t 800 kB\n", 800, id="what is resident now, not its peak"),
        pytest.param("Name:\tpython\nState:\tZ (zombie)\n", 0, id="a process that has ended has none"),
    ],
)
def test_kilobytes(status: str, expected: int) -> None:
    assert kilobytes(status) == expected


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


def test_a_round_without_a_proxy_has_no_cpu_time() -> None:
    direct = Sample(row=Row.STEADY, contestant=Contestant.DIRECT, value=None, p50_ms=0.2)

    cell = cells([direct])[Row.STEADY][Contestant.DIRECT]

    assert (cell.median, cell.least, cell.p50_ms, cell.p99_ms) == (None, None, 0.2, None)


def test_the_ratio_says_how_many_times_cheaper_the_sidecar_is() -> None:
    of = cells([sample(200), sample(500, Contestant.MITMDUMP), sample(100, Contestant.SQUID)])

    assert ratio(of, Row.KEEP_ALIVE, Contestant.MITMDUMP) == 2.5
    assert ratio(of, Row.KEEP_ALIVE, Contestant.SQUID) == 0.5


def test_a_variant_of_the_sidecar_is_compared_with_what_its_row_is_a_variant_of() -> None:
    of = cells([sample(200, row=Row.UNPOOLED), sample(500, Contestant.MITMDUMP, Row.NEW_CONNECTION)])

    assert ratio(of, Row.UNPOOLED, Contestant.MITMDUMP) == 2.5


def test_without_both_contestants_there_is_no_ratio() -> None:
    assert ratio(cells([sample(200)]), Row.KEEP_ALIVE, Contestant.MITMDUMP) is None


def test_the_document_names_its_conditions_but_not_this_machine() -> None:
    samples = [sample(200), sample(500, Contestant.MITMDUMP), sample(95, row=Row.IDLE_RSS)]

    text = json.dumps(document(samples, Plan(rounds=7), upstream="nginx/1.22.1", pinned=True))

    made = json.loads(text)
    assert made["rows"]["keep-alive"]["against_mitmdump"] == 2.5
    assert made["rows"]["keep-alive"]["sidecar"]["median"] == 200
    assert made["rows"]["idle-rss"]["unit"] == "MB"
    assert made["versions"]["upstream"] == "nginx/1.22.1"
    assert made["conditions"]["rounds"] == 7
    assert platform.node() not in text and str(Path.cwd()) not in text
    assert from_document(made) == cells(samples)


def test_a_promise_that_was_not_measured_counts_as_missed() -> None:
    text, holds = verdict.last_line(cells([sample(200)]))

    assert not holds and text.startswith("verdict: missed, 0 of ")


@pytest.mark.parametrize(
    ("ours", "holds", "says"),
    [
        pytest.param(
            {Row.UPLOAD: 101.0},
            False,
            "verdict: missed, 19 of 20 targets; not: 500 MB up, against mitmdump 3.96x (≥ 4x)",
            id="a ratio above the first byte decides",
        ),
        pytest.param(
            {Row.GROWTH: 6.0},
            True,
            "verdict: met, 19 of 20 targets; not: growth over 50,000 requests 6.00 MB (≤ 5 MB)",
            id="what stands below is said, and doesn't",
        ),
        pytest.param({}, True, "verdict: met, all 20 targets", id="all is well"),
    ],
)
def test_the_verdict(ours: dict[Row, float], holds: bool, says: str) -> None:
    base = dict.fromkeys(Row, 100.0) | {Row.GROWTH: 1.0, Row.CONNECTIONS_RSS: 20.0, Row.START: 10.0, Row.STEADY: 10.0}
    samples = [sample(value, row=row) for row, value in (base | ours).items()]
    samples += [sample(400.0, c, row) for row in Row for c in (Contestant.MITMDUMP, Contestant.SQUID)]
    samples += [sample(99.0, Contestant.DIRECT, row) for row in (Row.FIRST_BYTE, Row.EVENT_DELAY)]

    assert verdict.last_line(cells(samples)) == (says, holds)


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
    file.write_text(policy(8443, 8444))

    loaded = load_policy(file)

    assert len(loaded.rules) == RULES
    for name in (KNOWN, *contacts(3)):
        decision = judge_request(loaded, parse_host(name), 8443, "GET", "/1k")
        assert decision.allowed and decision.rule is loaded.rules[-1]
    assert not judge_name(loaded, parse_host(f"a.b.{DOMAIN}"), 8443).allowed
    assert not judge_request(loaded, parse_host(KNOWN), 8443, "GET", DENIED).allowed
    assert judge_name(loaded, parse_host(PASSED), 8443).rule is loaded.rules[0]


def test_a_process_meets_fewer_hosts_than_the_stock_certificate_store_holds() -> None:
    names = {KNOWN, PASSED, *contacts(0)}

    assert len(names) == CONTACTS + 2 <= 100


def test_each_round_meets_other_hosts_until_the_thousand_are_through() -> None:
    met = [name for number in range(NAMES // CONTACTS) for name in contacts(number)]

    assert len(set(met)) == len(met) == NAMES - NAMES % CONTACTS
    assert contacts(NAMES // CONTACTS) == contacts(0)


@pytest.mark.parametrize(
    ("share", "value"),
    [
        pytest.param(0.5, 500, id="half"),
        pytest.param(0.999, 999, id="all but one in a thousand"),
        pytest.param(1, 1000, id="all"),
    ],
)
def test_quantile(share: float, value: float) -> None:
    assert quantile([float(n) for n in range(1, 1001)], share) == value
    assert quantile([7.0], share) == 7.0


def test_a_number_of_operations_is_over_after_so_many() -> None:
    over = times(2)

    assert [over() for _ in range(4)] == [False, False, True, True]


def test_websocket_frames_go_round() -> None:
    sent, expected = client_frame(b"hello")

    assert echo(sent + sent[:3]) == (expected, sent[:3])
    # RFC 6455, section 1.3
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_an_http2_request_reads_as_what_was_meant() -> None:
    fields = Decoder().decode(request_block("known.bench.test:8443", SMALL))

    assert [(str(name), str(value)) for name, value, *_ in fields] == [
        (":method", "GET"),
        (":scheme", "https"),
        (":path", SMALL),
        (":authority", "known.bench.test:8443"),
        ("user-agent", "bench"),
    ]
    assert frame(0, 1, 5, b"abc") == b"\x00\x00\x03\x00\x01\x00\x00\x00\x05abc"


def test_requests_without_a_record_fail_the_run(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"event":"request_allowed"}\n{"event":"request_closed"}\n')
    log = tmp_path / "log.txt"
    log.write_text("what it said itself\n")
    proxy = Proxy(name="sidecar", pid=1, port=1, ca_file=tmp_path, log=log, events=events)

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


LOOKS = [Look(float(n), 100.0, 20) for n in range(9)]
ALL_WELL = {"request_closed": 9, "request_denied": 2, "request_failed": 1, "ca_rotated": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({}, None, id="all is well"),
        pytest.param({"errors": {"reset": 2}}, "a client: reset (2x)", id="what the mix doesn't explain"),
        pytest.param(
            {"events": ALL_WELL | {"request_closed": 8}},
            "clients saw 9 allowed, the events have 8 request_closed",
            id="a request without its record",
        ),
        pytest.param({"events": ALL_WELL | {"internal_error": 1}}, "1x internal_error", id="an error of our own"),
        pytest.param(
            {"looks": LOOKS[:6] + [Look(9.0, 103.0, 20)] * 3}, "memory grew from 100.0 to 103.0 MB", id="memory grows"
        ),
        pytest.param(
            {"looks": LOOKS[:6] + [Look(9.0, 100.0, 24)] * 3}, "file descriptors grew from 20 to 24", id="they grow"
        ),
        pytest.param({"looks": [Look(0.0, 9.0, 1)] * 3 + LOOKS[3:]}, None, id="caches fill in the first third"),
        pytest.param({"idle_descriptors": 4}, "4 file descriptors are left open", id="they aren't given back"),
    ],
)
def test_a_soak_is_judged_by_errors_events_and_growth(change: dict[str, Any], says: str | None) -> None:
    tally = Tally(allowed=9, denied=2, failed=1, reloads=3, rotations=1)
    seen: dict[str, Any] = {"errors": {}, "events": ALL_WELL, "looks": LOOKS, "idle_descriptors": 0} | change

    assert problems(tally, **seen) == ([says] if says else [])


def test_the_pages_say_what_the_results_say() -> None:
    made = json.loads(LATEST.read_text())

    for name, write in PAGES.items():
        text = (ROOT / name).read_text()
        assert filled(text, write(made)) == text, f"{name}: run python -m bench.pages"
    for name, plot in plots(from_document(made)).items():
        assert (LATEST.parent / name).read_text() == plot, f"{name}: run python -m bench.pages"


def test_a_plot_has_a_bar_for_each_contestant_as_long_as_its_share() -> None:
    of = cells([sample(200), sample(500, Contestant.MITMDUMP)])

    svg = ElementTree.fromstring(plots(of)["cpu.svg"])

    bars = [float(rect.get("width", "0")) for rect in svg.iter("{http://www.w3.org/2000/svg}rect") if rect.get("x")]
    assert len(bars) == 2 and bars[1] == pytest.approx(bars[0] * 200 / 500, abs=0.1)


def _bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", "--seconds", "0.1", *options]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False)


@pytest.fixture
def peers() -> None:
    """Skip where nginx or Squid are missing; with ``CI=true`` the run fails instead."""
    there = shutil.which("nginx", path=f"{os.defpath}:/usr/sbin") and squid.installed()
    if not there and os.environ.get("CI") != "true":
        pytest.skip("needs nginx and squid-openssl")


@pytest.mark.live
@pytest.mark.usefixtures("peers")
def test_a_few_operations_of_each_kind_run_through_every_contestant(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    rows = ["keep-alive", "http2", "new-connection", "first-contact", "websocket", "event-delay"]
    rows += ["upload", "first-byte", "passthrough", "denied", "start", "idle-rss", "connections-rss"]

    options = ["--rounds", "1", "--scale", "0.005", "--output", str(file)]
    result = _bench(*options, *(part for row in rows for part in ("--only", row)))

    assert result.returncode == 0, result.stderr
    measured = json.loads(file.read_text())["rows"]
    assert list(measured) == [row for row in Row if row in rows]
    for row, of in measured.items():
        for contestant in Contestant:
            assert (str(contestant) in of) == has(contestant, Row(row)), (row, contestant)


def has(contestant: Contestant, row: Row) -> bool:
    """Whether a contestant has this row: it can do it, and there is a process where it's about one."""
    about_a_process = row in {Row.START, Row.IDLE_RSS, Row.CONNECTIONS_RSS}
    return takes_part(contestant, row) and not (about_a_process and contestant is Contestant.DIRECT)


@pytest.mark.live
@pytest.mark.usefixtures("peers")
def test_the_profile_names_the_sidecars_functions() -> None:
    result = _bench("--profile", "--only", "keep-alive")

    assert result.returncode == 0, result.stderr
    assert "sidecar/cli/run.py" in result.stdout
