"""Whom upstreams are trusted by where the policy says nothing else."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import certifi
from cryptography import x509
from OpenSSL import SSL, crypto

from sidecar.pki.pem import to_pem
from sidecar.upstreams.trust import parse_roots

# Where Debian, Alpine, RHEL and openSUSE keep the system's roots.
_SYSTEM_ROOTS = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


@dataclass(frozen=True, slots=True)
class RootFiles:
    """What the flags name: roots alone, instead of the public ones, and roots besides."""

    alone: Path | None = None  # --upstream-ca
    besides: Path | None = None  # --add-upstream-ca

    @property
    def named(self) -> tuple[Path, ...]:
        return tuple(file for file in (self.alone, self.besides) if file is not None)


@dataclass(frozen=True, slots=True)
class Roots:
    """Roots by file (the public ones, as they are), and those that were read."""

    public: tuple[Path, ...]
    certificates: tuple[x509.Certificate, ...]

    def load(self, context: SSL.Context | ssl.SSLContext) -> None:
        """Trust them, and only them, in *context*."""
        for file in self.public:
            context.load_verify_locations(str(file))
        if not self.certificates:
            return
        if isinstance(context, ssl.SSLContext):
            context.load_verify_locations(cadata=to_pem(self.certificates).decode("ascii"))
            return
        store = context.get_cert_store()
        assert store is not None
        for certificate in self.certificates:
            store.add_cert(crypto.X509.from_cryptography(certificate))


def read_roots(files: RootFiles, read: Callable[[Path], bytes]) -> Roots:
    """
    The roots of *files*; certifi's and the system's where no others stand alone.

    Raises:
        SidecarError: A file can't be read, or holds no certificate, or holds a key.
    """
    found = tuple(root for file in files.named for root in parse_roots(read(file), str(file)))
    return Roots((Path(certifi.where()), *_system()) if files.alone is None else (), found)


def _system() -> tuple[Path, ...]:
    return tuple(path for path in map(Path, _SYSTEM_ROOTS) if path.is_file())[:1]
