"""``python -m demo``: exit code 0 if everything was as it should be, 1 if not, 130 after Ctrl-C."""

import argparse
import signal
import sys
import time
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo", description="Real clients against a real sidecar.")
    parser.add_argument("--client", choices=("auto", "curl", "python"), default="auto", help="default: curl if there")
    arguments = parser.parse_args()
    for number in _SIGNALS:
        signal.signal(number, _interrupt)
    started = time.monotonic()
    try:
        # Late: a Ctrl-C while these load is one, too.
        from demo.play import play
        from demo.screen import Screen
        from demo.stage import DemoFailed

        screen = Screen()
        try:
            play(screen, arguments.client)
        except DemoFailed as e:
            screen.failed(f"demo failed: {e}")
            return 1
    except KeyboardInterrupt:
        print("\ninterrupted; all processes are ended, all files removed", file=sys.stderr)
        return 130
    screen.say("")
    screen.say(f"Done in {time.monotonic() - started:.1f} s; all processes are ended, all files removed.")
    screen.say("Next: README.md; your own command: .venv/bin/sidecar exec --policy FILE -- COMMAND")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # a second one must not end the clearing away
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
