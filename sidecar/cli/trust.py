"""``sidecar trust``: each part of what a workload is told to trust, alone."""

import typer

app = typer.Typer(help="What the workload is told to trust, part by part.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass
