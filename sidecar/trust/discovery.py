"""Finds the clients that are there, as the workload would: on its PATH, and where Javas lie."""

import asyncio
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sidecar.trust import scripts
from sidecar.trust.clients import CLIENTS, JAVA, JAVA_FOLDERS, PYTHON_CLIENTS, PYTHONS, Store
from sidecar.trust.diagnosis import Found
from sidecar.trust.outcomes import Said
from sidecar.trust.runs import Runner

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # where a container has none
_TLS_LIBRARY = r" ((?:OpenSSL|GnuTLS|LibreSSL|BoringSSL|wolfSSL|mbedTLS|rustls-ffi|NSS)/\S+)"


async def discover(environment: Mapping[str, str], only: Collection[str], runner: Runner) -> list[Found]:
    """The clients that are there, those of the system first; each interpreter is asked what it is and has."""
    path = environment.get("PATH") or PATH
    found: dict[str, Found] = {}
    for client in CLIENTS:
        program = shutil.which(client.program, path=path)
        if program is not None and (not only or client.name in only):
            found.setdefault(client.name, Found(client=client, program=program, label=client.name))
    if "curl" in found:
        found["curl"] = await _curl(found["curl"], runner)
    javas = _javas(environment, path) if not only or JAVA.name in only else []
    pythons = _pythons(path) if not only or any(client.name in only for client in PYTHON_CLIENTS) else []
    of_javas = await asyncio.gather(*(_java(program, runner) for program in javas))
    of_pythons = await asyncio.gather(*(_python(program, runner) for program in pythons))
    unique = {(about.executable, about.prefix): about for about in reversed(of_pythons) if about is not None}
    versions = Counter(about.version for about in unique.values())
    return [
        *found.values(),
        *(java for java in of_javas if java is not None),
        *(each for about in reversed(unique.values()) for each in about.clients(only, versions[about.version] == 1)),
    ]


async def _curl(found: Found, runner: Runner) -> Found:
    said = await runner.run([found.program, "-V"])
    library = re.search(_TLS_LIBRARY, said.text)
    label = f"curl ({library[1].replace('/', ' ')})" if library else "curl"
    return Found(client=found.client, program=found.program, label=label)


@dataclass(frozen=True, slots=True)
class _Python:
    """An interpreter, as it describes itself. ``executable`` with links resolved: several names may be one."""

    program: str
    executable: str
    prefix: str
    version: str
    have: frozenset[str]
    openssl: str
    certifi: str | None

    def clients(self, only: Collection[str], by_version: bool) -> Iterator[Found]:
        name = f"Python {self.version}" if by_version else self.program
        for client in PYTHON_CLIENTS:
            if client.name in self.have and (not only or client.name in only):
                default = self.openssl if client.store is Store.OPENSSL else self.certifi
                yield Found(client=client, program=self.program, label=f"{client.name} ({name})", default=default)


def _pythons(path: str) -> list[str]:
    found = []
    for folder in dict.fromkeys(path.split(":")):
        try:
            names = sorted(entry.name for entry in os.scandir(folder or ".") if re.fullmatch(PYTHONS, entry.name))
        except OSError:
            continue
        found += [file for name in names if os.access(file := f"{folder}/{name}", os.X_OK)]
    return found


async def _python(program: str, runner: Runner) -> _Python | None:
    said = await runner.run([program, "-c", scripts.PYTHON_ABOUT, *(client.name for client in PYTHON_CLIENTS)])
    return _about(program, said)


def _about(program: str, said: Said) -> _Python | None:
    """None if it isn't what it is called: a program of the workload may say anything."""
    try:
        about = json.loads(said.text.strip().splitlines()[-1])
        return _Python(
            program=program,
            executable=os.path.realpath(str(about["executable"])),
            prefix=str(about["prefix"]),
            version=str(about["version"]),
            have=frozenset(map(str, about["have"])) | {"urllib"},
            openssl=str(about["openssl"]),
            certifi=about["certifi"] and str(about["certifi"]),
        )
    except (ValueError, LookupError, TypeError):
        return None


def _javas(environment: Mapping[str, str], path: str) -> list[str]:
    folders = [folder for pattern in JAVA_FOLDERS for folder in sorted(Path("/").glob(pattern))]
    homes = [environment.get("JAVA_HOME", ""), *map(str, folders)]
    places = [path, *(f"{home}/bin" for home in homes if home)]
    programs = [program for place in places if (program := shutil.which("java", path=place))]
    return list({os.path.realpath(program): program for program in reversed(programs)}.values())[::-1]


async def _java(program: str, runner: Runner) -> Found | None:
    return _keystore(program, await runner.run([program, "-XshowSettings:properties", "-version"]))


def _keystore(program: str, said: Said) -> Found | None:
    home = re.search(r"java\.home = (\S+)", said.text)
    version = re.search(r"java\.version = (\S+)", said.text)
    if home is None or version is None:
        return None
    stores = [f"{home[1]}/lib/security/{name}" for name in ("jssecacerts", "cacerts")]
    default = next((store for store in stores if Path(store).exists()), None)
    return Found(client=JAVA, program=program, label=f"java ({version[1]})", default=default)
