"""What the upstream serves: one page, and the least that each package manager takes for a registry."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.clients.client import MARKER

PAGE: Final = f"hello from the upstream {MARKER}\n"
_WHEEL: Final = f"marker-{MARKER}-py3-none-any.whl"
_COMMIT: Final = "5" * 40


def files(host: str) -> Iterator[tuple[str, str]]:
    """Paths below the root of *host* and their contents."""
    yield "index.html", PAGE
    yield "marker/index.html", PAGE  # S3: a bucket with an object
    yield "api/v3/marker", json.dumps({"marker": MARKER})  # gh
    yield "v2/index.html", "{}"  # skopeo
    yield "v2/marker/tags/list", json.dumps({"name": "marker", "tags": [MARKER]})
    yield "repo.git/info/refs", f"{_COMMIT}\trefs/tags/{MARKER}\n"  # git
    yield "repo.git/HEAD", f"ref: refs/tags/{MARKER}\n"
    yield "lfs/locks", json.dumps({"locks": [_lock()]})  # git-lfs
    yield "simple/marker/index.html", f'<a href="{_WHEEL}" data-dist-info-metadata="true">{_WHEEL}</a>'  # pip, uv
    yield f"simple/marker/{_WHEEL}.metadata", f"Metadata-Version: 2.1\nName: marker\nVersion: {MARKER}\n"
    yield "npm/marker", json.dumps(_npm(host))
    yield "maven/test/parent/1/parent-1.pom", _parent()
    yield "composer/packages.json", json.dumps({"packages": {"marker/marker": {MARKER: _composer()}}})
    yield "gems/versions", f"created_at: 2026-01-01T00:00:00Z\n---\nmarker {MARKER} {'0' * 32}\n"  # Bundler
    yield "gems/info/marker", f"---\n{MARKER} |checksum:{'0' * 64}\n"
    yield "cargo/config.json", json.dumps({"dl": f"https://{host}/cargo/dl", "api": f"https://{host}/cargo"})
    yield "cargo/ma/rk/marker", json.dumps(_crate()) + "\n"
    yield "cargo/api/v1/crates", json.dumps({"crates": [_found()], "meta": {"total": 1}})


def write(folder: Path, host: str) -> None:
    for path, text in files(host):
        file = folder / host / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _lock() -> dict[str, object]:
    return {"id": "1", "path": MARKER, "locked_at": "2026-01-01T00:00:00Z", "owner": {"name": "marker"}}


def _npm(host: str) -> dict[str, object]:
    shasum = "0" * 40
    dist = {"tarball": f"https://{host}/npm/marker/-/marker.tgz", "shasum": shasum}
    version = {"name": "marker", "version": MARKER, "dist": dist}
    return {"name": "marker", "dist-tags": {"latest": MARKER}, "versions": {MARKER: version}}


def _parent() -> str:
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>test</groupId><artifactId>parent</artifactId>"
        f"<version>1</version><packaging>pom</packaging><properties><seen>{MARKER}</seen></properties></project>"
    )


def _composer() -> dict[str, str]:
    return {"name": "marker/marker", "version": MARKER, "type": "metapackage"}


def _crate() -> dict[str, object]:
    return {"name": "marker", "vers": MARKER, "deps": [], "cksum": "0" * 64, "features": {}, "yanked": False}


def _found() -> dict[str, str]:
    return {"name": "marker", "max_version": MARKER, "description": "the upstream's"}
