"""``sidecar events``: what the event lines look like."""

import json

import typer

from sidecar.events.schema import event_schema

app = typer.Typer(help="The event log's contract.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def schema() -> None:
    """Print the JSON Schema of one event line."""
    print(json.dumps(event_schema(), indent=2))
