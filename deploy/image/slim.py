"""
Takes out of a Debian root what the sidecar doesn't run: shell, package manager, logins, pip, documentation.

Kept are the packages that ROOTS, the interpreter and the environment's libraries need, by Debian's own dependencies,
and every file that belongs to no package. The list of packages stays true, so that scanners can read it.

Runs as root in the image's root, once; afterwards nothing can be installed there.
"""

import compileall
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from py_compile import PycInvalidationMode

ROOTS = ("base-files", "libc-bin", "netbase", "tzdata", "iproute2", "nftables", "ca-certificates")
# Named as dependencies, for their installation alone.
INSTALLERS = {"adduser", "debconf", "debconf-2.0", "cdebconf", "dpkg", "init-system-helpers", "install-info", "openssl"}
INSTALLERS |= {"awk", "mawk", "libcap2-bin", "libpam-runtime", "passwd", "perl-base", "readline-common", "tar"}
NOT_IN_USE = ("ensurepip", "idlelib", "lib2to3", "pydoc_data", "tkinter", "turtledemo", "test", "__phello__")
FOLDERS: tuple[str, ...] = (
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/include",
)
FOLDERS += (
    "usr/share/python-wheels",
    "usr/share/python3",
    "usr/lib/python3",
    "usr/lib/systemd",
    "etc/systemd",
    "usr/share/perl5",
    "usr/share/bash-completion",
    "usr/share/zoneinfo/right",
)
FOLDERS += ("usr/local/include", "usr/local/share/man", "usr/local/lib/pkgconfig", "usr/lib/pkgconfig")
FOLDERS += ("var/cache", "var/log", "var/lib/apt", "etc/apt", "etc/alternatives", "root", "tmp")
DPKG = Path("/var/lib/dpkg")

Stanza = dict[str, str]


def main() -> None:
    packages = read_status((DPKG / "status").read_text())
    lists = {path.name.removesuffix(".list").partition(":")[0]: path for path in DPKG.glob("info/*.list")}
    owners = {canonical(path): name for name in lists for path in files_of(lists[name])}
    wanted = {owners[path] for path in map(canonical, in_use()) if path in owners}
    kept = closure({*ROOTS, *wanted}, packages)
    needed = {canonical(path) for name in kept if name in lists for path in files_of(lists[name])}

    for name in sorted(packages.keys() - kept):
        if name in lists:
            remove([path for path in files_of(lists[name]) if canonical(path) not in needed])
    strip_python()
    for folder in FOLDERS:
        empty(Path("/") / folder)
    for path in Path("/usr/share/doc").rglob("*"):
        if not path.is_dir() and path.name != "copyright":
            path.unlink()
    for path in DPKG.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (DPKG / "status").write_text("".join(packages[name]["text"] for name in sorted(kept & packages.keys())))
    harden()
    shutil.rmtree(Path(__file__).parent)
    print(f"kept {len(kept & packages.keys())} of {len(packages)} packages: {' '.join(sorted(kept & packages.keys()))}")


def read_status(text: str) -> dict[str, Stanza]:
    """Installed packages by name, with the fields that matter, and their whole text."""
    found = {}
    for block in text.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE))
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = {**fields, "text": block.strip("\n") + "\n\n"}
    return found


def closure(names: Iterable[str], packages: dict[str, Stanza]) -> set[str]:
    """These packages and all that they depend on, but for installers."""
    providers: dict[str, set[str]] = {}
    for name, stanza in packages.items():
        for provided in names_in(stanza.get("Provides", "")):
            providers.setdefault(provided, set()).add(name)
    found: set[str] = set()
    waiting = [name for name in names if name in packages]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        stanza = packages[name]
        for needed in names_in(f"{stanza.get('Depends', '')}, {stanza.get('Pre-Depends', '')}"):
            if needed not in INSTALLERS:
                waiting += [each for each in {needed, *providers.get(needed, ())} if each in packages]
    return found - INSTALLERS


def names_in(field: str) -> Iterator[str]:
    for part in re.split(r"[,|]", field):
        if name := re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", part):
            yield name[1]


def in_use() -> Iterator[str]:
    """The interpreter, its standard library, and the shared libraries that it and the environment load."""
    link = Path(sys.executable)
    while link.is_symlink():
        yield str(link)
        link = link.parent / link.readlink()
    yield str(link)
    standard = Path(sysconfig.get_path("stdlib"))
    yield from (str(path) for path in standard.glob("*.py"))
    for library in [link, *standard.rglob("*.so"), *Path(sys.prefix).rglob("*.so*")]:
        linked = subprocess.run(["ldd", library], capture_output=True, text=True, check=False)
        yield from re.findall(r"(/\S+) \(0x", linked.stdout)


def files_of(listing: Path) -> list[str]:
    return [line for line in listing.read_text().splitlines() if line != "/."]


def canonical(path: str) -> str:
    """Its place behind the links of its folder: /bin is /usr/bin."""
    return str(Path(os.path.realpath(Path(path).parent), Path(path).name))


def remove(paths: Iterable[str]) -> None:
    """Files, then the folders that are empty without them."""
    folders = []
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            folders.append(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted(folders, reverse=True):
        try:
            folder.rmdir()
        except OSError:
            continue  # something else is in there


def strip_python() -> None:
    """The base interpreter's own installer and unused modules; the rest is compiled, for a root that is read-only."""
    standard = Path(sysconfig.get_path("stdlib"))
    for name in NOT_IN_USE:
        shutil.rmtree(standard / name, ignore_errors=True)
    for path in [*standard.glob("config-*"), *standard.glob("_sysconfigdata*/"), *standard.glob("*-packages/*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for pattern in ("pip*", "wheel*", "py3*", "idle*", "pydoc*", "2to3*", "python*-config"):
        for path in [*Path("/usr/local/bin").glob(pattern), *Path("/usr/bin").glob(pattern)]:
            path.unlink()
    for path in list(standard.rglob("__pycache__")):
        shutil.rmtree(path)
    compileall.compile_dir(standard, quiet=1, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def empty(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def harden() -> None:
    """No file gives privileges to whoever runs it, and no link leads nowhere."""
    for top in ("usr", "etc", "opt", "var"):
        for path in (Path("/") / top).rglob("*"):
            if path.is_symlink():
                if not path.exists() and path.parent != Path("/etc"):
                    path.unlink()
            elif (mode := path.stat().st_mode) & (stat.S_ISUID | stat.S_ISGID) and path.is_file():
                path.chmod(stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


if __name__ == "__main__":
    main()
