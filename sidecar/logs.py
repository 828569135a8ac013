"""The program's own log: structlog on stderr. Events are not logs; they alone go to stdout."""

import logging
import sys

# mitmproxy logs each connection and each refusal at these levels; our events say it better. watchfiles logs each
# change in the policy's folder, a log file's own lines included.
_CHATTY = (
    "watchfiles.main",
    "mitmproxy.proxy.server",
    "mitmproxy.addons.proxyserver",
    "mitmproxy.proxy.mode_servers",
    "hpack",
    "asyncio",
)


class _Late(logging.Formatter):
    """structlog, once there is something to say: most sidecars say nothing, and need neither it nor its memory."""

    def __init__(self, json: bool) -> None:
        super().__init__()
        self._json = json
        self._formatter: logging.Formatter | None = None

    def format(self, record: logging.LogRecord) -> str:
        if self._formatter is None:
            try:
                self._formatter = _formatter(json=self._json)
            except (ImportError, OSError):  # no descriptor is left to read it by: plain, and next time anew
                return super().format(record)
        return self._formatter.format(record)


def configure(level: str = "warning", *, json: bool = False) -> None:
    """Send the standard library's logging, mitmproxy's included, through structlog to stderr at *level*."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Late(json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR if level.upper() != "DEBUG" else logging.DEBUG)


def _formatter(*, json: bool) -> logging.Formatter:
    import structlog

    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    final: list[structlog.typing.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
        renderer,
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=final)
