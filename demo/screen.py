"""How the demo looks: commands as they are typed, answers, event lines shortened to what matters."""

import json
import os
import re
import sys
import textwrap
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from demo.stage import Line

_WIDEST = 100
_GLUE = "\0"  # a space at which no line is broken
# Of each line: these fields, unless null, in the order in which they were written. "…" stands for the others.
_SHOWN = (
    "event", "seq", "side", "method", "host", "path", "protocol", "status", "reason", "rule", "authority", "hosts",
    "alert", "hint", "upstream_address", "bytes_in", "subject", "not_after", "rules", "default", "listen",
)  # fmt: skip
_STYLES = {"info": "cyan", "warning": "yellow", "error": "red"}
_HEADER = re.compile(r"(?:< )?([A-Za-z-]+): ")
_STATUS = re.compile(r"^(?:< )?HTTP/[0-9.]+ ([0-9]{3})\b.*$", re.MULTILINE)


def status_of(text: str) -> int | None:
    """The last status line's code: the one before it is CONNECT's."""
    found = _STATUS.findall(text)
    return int(found[-1]) if found else None


def shorten(line: Line) -> str:
    """An event line with the fields that say most; values stay as they were written."""
    kept = {name: value for name, value in line.items() if name in _SHOWN and value is not None}
    return json.dumps(kept, ensure_ascii=False)[:-1] + (", …}" if len(kept) < len(line) else "}")


def answer(stdout: str, stderr: str, *, whole: bool = True) -> list[str]:
    """
    What a client printed, without most of ``-i`` and ``-v``: issuer, last status line, type, body, complaint.

    Args:
        whole: The whole of a problem document; else only what differs most from one to the next.
    """
    notes = [line for line in stderr.splitlines() if not line.startswith(("* ", "> ", "< ", "{ ", "} ", "*\t"))]
    issuer = [line for line in stderr.splitlines() if re.match(r"\*\s+issuer: ", line)]
    status = [found[0] for found in _STATUS.finditer(stderr)][-1:]
    start = max((found.start() for found in _STATUS.finditer(stdout)), default=0)
    head, _, body = stdout[start:].replace("\r\n", "\n").partition("\n\n") if start or status_of(stdout) else ("",) * 3
    kept = [line for line in head.splitlines() if not (h := _HEADER.match(line)) or h[1].lower() == "content-type"]
    body = body if head else stdout
    with suppress(ValueError):
        problem = json.loads(body)
        told = {name: value for name, value in problem.items() if whole or name in ("reason", "detail", "hint")}
        body = json.dumps(told, indent=2, ensure_ascii=False)
        body = body if whole else body.removesuffix("\n}") + ",\n  …\n}"
    complaint = [line for line in notes if re.match(r"(curl|client\.py): \(", line)]
    rest = [*complaint, "…"] if complaint and len(complaint) < len(notes) else complaint
    return [*issuer, *status, *kept, *body.rstrip().splitlines(), *rest]


class Screen:
    """Writes to standard output: in colours on a terminal, plain elsewhere."""

    def __init__(self) -> None:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # a terminal without UTF-8 gets question marks, not a traceback
        probe = Console()
        wide = probe.width if probe.is_terminal or "COLUMNS" in os.environ else _WIDEST
        self.console = Console(width=min(wide, _WIDEST), highlight=False)

    def heading(self, text: str, why: str = "") -> None:
        self.console.print()
        self.console.rule(Text(text, style="bold"), align="left", style="dim")
        if why:
            self.say(why)

    def command(self, *words: str) -> None:
        """A command as the user types it, over several lines where it is long."""
        width = self.console.width - 6
        text = re.sub(r"(--\S+) (?!-)", rf"\1{_GLUE}", " ".join(words))
        lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
        for number, line in enumerate(lines):
            mark = "$ " if number == 0 else "    "
            self._line(mark + line + (" \\" if number + 1 < len(lines) else ""), "bold green", 2)

    def output(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._wrapped(line, "", 4)

    def events(self, lines: Sequence[Line], file: str = "events.jsonl") -> None:
        self._line(f"{file} has {len(lines)} new line{'s' * (len(lines) != 1)}:", "dim", 2)
        for line in lines:
            self._wrapped(shorten(line).replace('": ', f'":{_GLUE}'), _STYLES.get(line["level"], ""), 4)

    def proven(self, text: str) -> None:
        self._wrapped(f"✓ {text}", "bold", 2)

    def failed(self, text: str) -> None:
        self.console.print()
        self._wrapped(f"✗ {text}", "bold red", 0)

    def say(self, text: str) -> None:
        self._wrapped(text, "", 2)

    def show(self, what: RenderableType) -> None:
        self.console.print(Padding(what, (0, 0, 0, 2)))

    def _wrapped(self, text: str, style: str, indent: int) -> None:
        # Not broken on hyphens or inside of words: what is shown can be searched for and pasted.
        width = self.console.width - indent
        more = re.match(r"\s*", text)
        lines = textwrap.wrap(
            text, width, subsequent_indent=" " * (more.end() + 2 if more else 2), replace_whitespace=False,
            drop_whitespace=True, break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        for line in lines or [""]:
            self._line(line, style, indent)

    def _line(self, text: str, style: str, indent: int) -> None:
        self.console.print(Text(" " * indent + text.replace(_GLUE, " "), style=style), soft_wrap=True)
