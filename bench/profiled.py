"""
The sidecar under a sampling profiler: ``python -m bench.profiled FILE ARGUMENTS``.

SIGUSR1 starts the profile, SIGUSR2 ends it and writes it to FILE: what is in it is the load, not the start. A sample is
taken with each tick of CPU time, so waiting costs nothing, and a function isn't dearer for the calls that it makes, as
it is under cProfile (which sees all threads as one stack besides). C code counts for the function that calls it.
"""

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

from sidecar.cli import main

INTERVAL_SECONDS = 0.001  # the kernel's tick is longer; it takes one sample for each of its own

type Function = tuple[str, int, str]  # file, line, name


class Sampler:
    """Counts which functions the main thread is in."""

    def __init__(self) -> None:
        self._own: Counter[CodeType] = Counter()
        self._inside: Counter[CodeType] = Counter()

    def sample(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self._own[frame.f_code] += 1
        inside: set[CodeType] = set()  # a function that calls itself is in it once
        while frame is not None:
            inside.add(frame.f_code)
            frame = frame.f_back
        self._inside.update(inside)

    def dump(self) -> str:
        """JSON: a list of [file, line, name, samples in it, samples in it or what it calls]."""
        functions = [
            [code.co_filename, code.co_firstlineno, code.co_qualname, self._own[code], inside]
            for code, inside in self._inside.items()
        ]
        return json.dumps(functions)


def _profile_on_signals(file: Path) -> None:
    sampler = Sampler()

    def start(*_: object) -> None:
        signal.signal(signal.SIGPROF, sampler.sample)
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def end(*_: object) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        partial = file.with_suffix(".partial")
        partial.write_text(sampler.dump())
        partial.replace(file)  # whoever waits for it finds it whole

    signal.signal(signal.SIGUSR1, start)
    signal.signal(signal.SIGUSR2, end)


if __name__ == "__main__":
    _profile_on_signals(Path(sys.argv[1]))
    sys.argv = ["sidecar", *sys.argv[2:]]
    main()
