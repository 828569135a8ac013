"""`sidecar policy`: check a policy, explain what it does with a URL."""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import orjson
import typer

from sidecar.errors import Exit, SidecarError
from sidecar.policy import (
    Decision,
    Policy,
    PolicyError,
    Problem,
    explain_url,
    lint_policy,
    load_policy,
    parse_policy,
)
from sidecar.policy.load import MAX_SIZE
from sidecar.policy.problems import PolicyFileError
from sidecar.reasons import Reason

app = typer.Typer(name="policy", help="Check a policy, or explain what it decides.", no_args_is_help=True)

FILE = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file; - reads standard input.")]


@app.command()
def check(
    file: FILE,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if there are warnings.")] = False,
    files: Annotated[
        bool, typer.Option("--files", help="Read the files that it names as well, as `sidecar run` does.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say whether FILE is a valid policy, and what in it is doubtful."""
    try:
        policy = _load(file)
        if files:
            from sidecar.upstreams.files import load_upstreams
            from sidecar.upstreams.roots import RootFiles

            load_upstreams(policy, RootFiles())
    except PolicyError as e:
        if as_json:
            _print_json({"valid": False, "errors": [_row(problem) for problem in e.problems], "warnings": []})
        _fail(e)
    warnings = lint_policy(policy)
    for warning in warnings:
        where = f"{warning.where}: " if warning.path else ""
        typer.echo(f"{policy.source}:{warning.line}:{warning.column}: warning: {where}{warning.message}", err=True)
    if as_json:
        facts = {"rules": len(policy.rules), "default": policy.default.value, "hash": policy.hash}
        _print_json({"valid": True, **facts, "errors": [], "warnings": [_row(warning) for warning in warnings]})
    else:
        rules = "1 rule" if len(policy.rules) == 1 else f"{len(policy.rules)} rules"
        typer.echo(f"{policy.source}: {rules}, default {policy.default}, hash {policy.hash}")
    raise typer.Exit(Exit.NO if strict and warnings else Exit.YES)


@app.command()
def explain(
    file: FILE,
    url: Annotated[str, typer.Argument(metavar="URL", help="https://host/path, or tcp://host:port.")],
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
) -> None:
    """Say what FILE does with URL, and which rule decides. Exit with 0 if it is allowed, with 1 if not."""
    try:
        policy = _load(file)
        explanation = explain_url(policy, url, method)
    except SidecarError as e:
        _fail(e)
    for rule, why in explanation.passed_over:
        typer.echo(f"{policy.source}:{rule.position.line}: {rule.label}: {why}")
    typer.echo(_verdict(policy, explanation.decision))
    raise typer.Exit(Exit.YES if explanation.decision.allowed else Exit.NO)


def _verdict(policy: Policy, decision: Decision) -> str:
    if decision.reason is Reason.BUILTIN:
        return f"{policy.source}: {decision.verdict}: the sidecar answers for it itself, over HTTPS alone"
    if decision.rule is None:
        return f"{policy.source}: {decision.verdict}: no rule matches, and the default is {policy.default}"
    rule = decision.rule
    says = f"{rule.verdict} {', '.join(rule.hosts)}"
    return f"{policy.source}:{rule.position.line}: {decision.verdict}: {rule.label} decides ({says})"


def _load(file: Path) -> Policy:
    if str(file) != "-":
        return load_policy(file)
    try:
        return parse_policy(sys.stdin.buffer.read(MAX_SIZE + 1).decode("utf-8-sig"), "<stdin>")
    except UnicodeDecodeError as e:
        raise PolicyFileError("<stdin>", f"is not UTF-8 (byte {e.start}); save it as UTF-8") from e


def _row(problem: Problem) -> dict[str, object]:
    return {"line": problem.line, "column": problem.column, "where": problem.where, "message": problem.message}


def _print_json(value: object) -> None:
    typer.echo(orjson.dumps(value).decode())


def _fail(error: SidecarError) -> NoReturn:
    typer.echo(str(error), err=True)
    raise typer.Exit(error.exit_code)
