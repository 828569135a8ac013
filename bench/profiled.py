"""
The sidecar under cProfile: ``python -m bench.profiled FILE ARGUMENTS``.

SIGUSR1 starts the profile, SIGUSR2 ends it and writes it to FILE: what is in it is the load, not the start.
"""

import cProfile
import signal
import sys
from pathlib import Path

from sidecar.cli import main


def _profile_on_signals(file: Path) -> None:
    profile = cProfile.Profile()

    def write(*_: object) -> None:
        profile.disable()
        partial = file.with_suffix(".partial")
        profile.dump_stats(partial)
        partial.replace(file)

    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, write)


if __name__ == "__main__":
    _profile_on_signals(Path(sys.argv[1]))
    sys.argv = ["sidecar", *sys.argv[2:]]
    main()
