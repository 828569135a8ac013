"""
Fuzz for as long as is asked: ``python -m tests.fuzz MINUTES [TARGET…]``, by coverage where atheris is installed.

Each target runs in a process of its own, as many at a time as there are processors. What breaks one is written to
``tests/fuzz/found/`` and printed; exit 1 then.
"""

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

FOUND: Final = Path(__file__).with_name("found")
_INSTRUMENTED: Final = ["sidecar", "addons", "h11", "h2", "hpack", "hyperframe", "mitmproxy.net", "mitmproxy.proxy"]


def run(target: str, seconds: int) -> int:
    """Fuzz *target* in this process; doesn't return."""
    import atheris  # type: ignore[import-untyped]

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS

    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(target)):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=30", "-rss_limit_mb=2048", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={FOUND}/{target}-", corpus], TARGETS[target])
        atheris.Fuzz()
    return 0


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--one"]:
        return run(arguments[1], int(arguments[2]))
    from tests.fuzz.targets import TARGETS

    minutes, chosen = float(arguments[0]), arguments[1:] or list(TARGETS)
    workers = os.cpu_count() or 1
    seconds = max(5, round(minutes * 60 * workers / len(chosen)))

    def fuzz(target: str) -> tuple[str, int, str]:
        command = [sys.executable, "-m", "tests.fuzz", "--one", target, str(seconds)]
        done = subprocess.run(command, capture_output=True, timeout=seconds + 120, check=False)
        return target, done.returncode, (done.stdout + done.stderr).decode(errors="replace")

    failed = 0
    with ThreadPoolExecutor(workers) as pool:
        for target, code, output in pool.map(fuzz, chosen):
            failed += code != 0
            runs = [line for line in output.splitlines() if line.startswith(("Done ", "stat::"))]
            print(f"{target}: {'nothing found' if code == 0 else f'exit {code}'} {' '.join(runs)}", flush=True)
            if code:
                said = [line for line in output.splitlines() if not line.startswith(("INFO:", "WARNING:"))]
                print("\n".join(said)[-6000:], flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
