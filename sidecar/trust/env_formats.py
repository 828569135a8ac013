"""The variables as text, for whoever reads it: a shell, dotenv, Docker, Kubernetes, or a program."""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import PurePath
from typing import Final

from sidecar.render.documents import dump
from sidecar.trust.env import ENV, JAVA, env_file, env_variables
from sidecar.trust.errors import TrustError
from sidecar.trust.keystore import PASSWORD


class Format(StrEnum):
    SHELL = "shell"
    DOTENV = "dotenv"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"
    JSON = "json"


_FILES: Final[Mapping[Format, str]] = {
    Format.SHELL: "env.sh",
    Format.DOTENV: "env.dotenv",
    Format.KUBERNETES: "env.yaml",
    Format.JSON: "env.json",
}


def env_text(form: Format, mount: PurePath, password: str | None = PASSWORD) -> str:
    """
    Write the variables of a workload that finds the trust folder at *mount*.

    Only the shell's form can append to what the user has in ``JAVA_TOOL_OPTIONS``; the others set it.

    Raises:
        TrustError: *mount* isn't absolute, or the format can't hold it.
    """
    return _WRITERS[form](env_variables(mount, password=password))


def env_files(mount: PurePath, password: str | None = PASSWORD) -> dict[str, bytes]:
    """
    The files of the trust folder that hold the variables: ``env``, and one more for each format but Docker's.

    Raises:
        TrustError: One of them can't hold *mount*.
    """
    return {ENV: env_file(mount)} | {name: env_text(form, mount, password).encode() for form, name in _FILES.items()}


def _shell(variables: Mapping[str, str]) -> str:
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in variables.items() if name != JAVA]
    return "".join([*lines, *_appended(JAVA, shlex.quote(variables[JAVA]))])


def _appended(name: str, quoted: str) -> Iterator[str]:
    yield f'case " ${{{name}-}} " in\n'
    yield f'  *" "{quoted}" "*) ;;\n'
    yield f'  *) export {name}="${{{name}:+${name} }}"{quoted} ;;\n'
    yield "esac\n"


def _dotenv(variables: Mapping[str, str]) -> str:
    # Between single quotes every reader takes every character as it stands, but the quote and the backslash.
    _check(variables, r"['\\\r\n]", "dotenv")
    return "".join(f"{name}='{value}'\n" for name, value in variables.items())


def _docker(variables: Mapping[str, str]) -> str:
    _check(variables, r"[\r\n]", "docker")
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _kubernetes(variables: Mapping[str, str]) -> str:
    # $(NAME) would be replaced by that variable's value; $$ is one $.
    entries = [{"name": name, "value": value.replace("$(", "$$(")} for name, value in variables.items()]
    return dump([{"env": entries}]).removeprefix("---\n")


def _json(variables: Mapping[str, str]) -> str:
    return json.dumps(variables, indent=2) + "\n"


_WRITERS: Final[Mapping[Format, Callable[[Mapping[str, str]], str]]] = {
    Format.SHELL: _shell,
    Format.DOTENV: _dotenv,
    Format.DOCKER: _docker,
    Format.KUBERNETES: _kubernetes,
    Format.JSON: _json,
}


def _check(variables: Mapping[str, str], forbidden: str, form: str) -> None:
    for name, value in variables.items():
        if re.search(forbidden, value):
            raise TrustError(f"{name}: {value!r} can't be written as {form}; name a folder in plainer characters")
