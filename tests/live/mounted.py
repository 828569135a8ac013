"""A mounted Secret with a CA in cert-manager's form, and the ways in which it changes under a running sidecar."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.pki.authorities import Authority, authority


def authority_now(name: str, parent: Authority | None = None, *, path_length: int | None = None) -> Authority:
    """A CA that is valid for a month from an hour ago."""
    now = datetime.now(UTC)
    begin, end = now - timedelta(hours=1), now + timedelta(days=30)
    return authority(name, parent, begin=begin, end=end, path_length=path_length)


def ca_files(issuing: Authority, root: Authority) -> dict[str, bytes]:
    return {"tls.crt": issuing.pem, "tls.key": issuing.key_pem, "ca.crt": root.pem}


class Secret:
    """A folder as the kubelet mounts it: each file links into ``..data``, and that to the version in force."""

    def __init__(self, folder: Path, contents: dict[str, bytes]) -> None:
        self.folder, self._version = folder, 0
        folder.mkdir()
        self.swap(contents)
        for name in contents:
            (folder / name).symlink_to(f"..data/{name}")

    def swap(self, contents: dict[str, bytes]) -> None:
        """Another version at once, as the kubelet does; the one before is removed."""
        before, self._version = self.folder / f"..{self._version}", self._version + 1
        fresh = self.folder / f"..{self._version}"
        fresh.mkdir()
        write_in_place(fresh, contents)
        (self.folder / "..data_tmp").symlink_to(fresh.name)
        (self.folder / "..data_tmp").replace(self.folder / "..data")
        if before.exists():
            for path in before.iterdir():
                path.unlink()
            before.rmdir()


def put(path: Path, content: str | bytes) -> None:
    """Replace the file in one step."""
    fresh = path.with_name(".fresh")
    fresh.write_bytes(content.encode() if isinstance(content, str) else content)
    fresh.replace(path)


def write_in_place(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)


def rename_over(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        write_in_place(folder, {f".{name}": content})
        (folder / f".{name}").replace(folder / name)
