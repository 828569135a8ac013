"""Reads what a policy and the flags name for upstreams, all of it or nothing."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from OpenSSL import SSL

from sidecar.errors import SidecarError
from sidecar.hosts import Host
from sidecar.policy import Policy, PolicyError, Problem
from sidecar.policy.index import Index, build_index
from sidecar.policy.upstreams import NamedFile, Upstream
from sidecar.upstreams.handshake import make_context
from sidecar.upstreams.roots import RootFiles, Roots, read_roots
from sidecar.upstreams.trust import Trust, UpstreamFileError, parse_client, parse_crls, parse_roots


@dataclass(frozen=True, slots=True)
class Upstreams:
    """
    How the TLS with each upstream is made: contexts with the files' content, swapped whole.

    Attributes:
        roots: The sidecar's own: for the upstreams of no entry, and for what is no upstream.
        digest: Of what was read: another one means another content. Never shown, since keys went into it.
    """

    roots: Roots
    root_files: RootFiles
    digest: str = field(repr=False)
    _default: SSL.Context = field(repr=False)
    _entries: tuple[SSL.Context, ...] = field(repr=False)
    _index: Index = field(repr=False)

    def context_for(self, host: Host) -> SSL.Context:
        """That of the first entry that names *host*, or of none."""
        index = self._index
        found = index.of_name(host.name) if host.address is None else index.of_address(host.address)
        return self._entries[found[0]] if found else self._default


def files_of(policy: Policy, root_files: RootFiles) -> tuple[Path, ...]:
    """All that `load_upstreams` reads, to be watched."""
    folder = Path(policy.source).parent
    return (*root_files.named, *(folder / file.path for entry in policy.upstreams for file in entry.files))


def load_upstreams(policy: Policy, root_files: RootFiles) -> Upstreams:
    """
    Read the files that *policy* and the flags name.

    Raises:
        PolicyError: A file of the policy can't be read or used; each is named with its place in the policy.
        SidecarError: A file of the flags can't.
    """
    reader = _Reader(Path(policy.source).parent)
    roots = read_roots(root_files, reader.read)
    entries = [reader.trust(entry) for entry in policy.upstreams]
    contexts = [
        reader.attempt(partial(make_context, trust, roots.load), *entry.files)
        for entry, trust in zip(policy.upstreams, entries, strict=True)
    ]
    if reader.problems:
        raise PolicyError(policy.source, tuple(reader.problems)) from reader.unread
    return Upstreams(
        roots=roots,
        root_files=root_files,
        digest=reader.digest.hexdigest(),
        _default=make_context(Trust(), roots.load),
        _entries=tuple(context for context in contexts if context is not None),
        _index=build_index(entry.patterns for entry in policy.upstreams),
    )


class _Reader:
    """Reads each file, notes what is wrong with it, and goes on: so that all is told at once."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[Problem] = []
        self.unread: BaseException | None = None
        self.digest = hashlib.sha256()
        self._folder = folder

    def path(self, file: NamedFile) -> Path:
        return self._folder / file.path

    def read(self, path: Path) -> bytes:
        try:
            data = path.read_bytes()
        except OSError as e:
            what = e.strerror or type(e).__name__
            raise UpstreamFileError(
                f"{path}: can't be read: {what}; give the path of a file that this user may read"
            ) from e
        self.digest.update(hashlib.sha256(data).digest())
        return data

    def attempt[T](self, parse: Callable[[], T], *files: NamedFile) -> T | None:
        """What *parse* makes of *files*; a problem at the last of them where it can't."""
        if not files:
            return parse()
        try:
            return parse()
        except SidecarError as e:
            self.problems.append(Problem(files[-1].position, files[-1].where, str(e)))
            self.unread = self.unread or e.__cause__
        return None

    def trust(self, entry: Upstream) -> Trust:
        certificate, key = entry.client_certificate, entry.client_key
        client = None
        if certificate is not None and key is not None:
            shown, private = self._content(certificate), self._content(key)
            if shown is not None and private is not None:
                client = self.attempt(
                    lambda: parse_client(
                        shown, private, certificate_name=str(self.path(certificate)), key_name=str(self.path(key))
                    ),
                    key,
                )
        return Trust(
            roots=self._parsed(entry.roots, parse_roots),
            add_roots=self._parsed(entry.add_roots, parse_roots),
            client=client,
            crls=self._parsed(entry.crl, parse_crls),
            accept=entry.accept,
        )

    def _content(self, file: NamedFile) -> bytes | None:
        return self.attempt(lambda: self.read(self.path(file)), file)

    def _parsed[T](self, file: NamedFile | None, parse: Callable[[bytes, str], tuple[T, ...]]) -> tuple[T, ...]:
        content = self._content(file) if file is not None else None
        if file is None or content is None:
            return ()
        return self.attempt(lambda: parse(content, str(self.path(file))), file) or ()
