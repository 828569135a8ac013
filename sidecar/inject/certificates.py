"""The webhook's serving certificate: read from a folder, read again when it is rotated, never half of a pair."""

import contextlib
import hashlib
import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from sidecar.errors import CannotRun, SidecarError

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"

_log = logging.getLogger(__name__)


class CertificateError(SidecarError):
    """The folder holds no pair that can be served with."""


class ServingCertificate:
    """
    A TLS context whose certificate can be exchanged while connections come in.

    Each certificate gets a context of its own: a handshake that has begun ends with the one that it began with, and a
    key of another kind leaves nothing of the former behind.
    """

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            CertificateError: There is no usable pair.
            CannotRun: A file can't be read.
        """
        self._folder = folder
        self._refused = ""
        self._digest, self._current, self.not_after = _load(folder)
        self.context = _context()
        self.context.sni_callback = self._choose
        # What is served with is set by the callback; without any certificate OpenSSL would refuse before it is called.
        _load_into(self.context, folder)

    def reload(self) -> bool:
        """
        Take in what the folder holds now. What can't be used is logged once, and the last good pair goes on.

        Returns:
            Whether another certificate is served from now on.
        """
        try:
            digest, context, not_after = _load(self._folder, unless=self._digest)
        except SidecarError as e:
            if str(e) != self._refused:
                _log.error("%s; going on with the certificate until %s", e, f"{self.not_after:%FT%TZ}")
            self._refused = str(e)
            return False
        self._refused = ""
        if digest == self._digest or context is None:
            return False
        self._digest, self._current, self.not_after = digest, context, not_after
        _log.warning("serving with another certificate, valid until %s", f"{not_after:%FT%TZ}")
        return True

    def expired(self) -> bool:
        return datetime.now(UTC) >= self.not_after

    def _choose(self, connection: Any, _name: str | None, _context: ssl.SSLContext) -> None:
        if self._current is not None:
            connection.context = self._current


def _load(folder: Path, unless: str = "") -> tuple[str, ssl.SSLContext | None, datetime]:
    certificate = _read(folder / CERTIFICATE)
    digest = hashlib.sha256(certificate + b"\0" + _read(folder / KEY)).hexdigest()
    if digest == unless:
        return digest, None, datetime.min.replace(tzinfo=UTC)
    context = _context()
    _load_into(context, folder)
    try:
        not_after = x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc
    except ValueError:
        raise CertificateError(f"{folder / CERTIFICATE} holds no certificate in PEM; mount the Secret again") from None
    return digest, context, not_after


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with contextlib.suppress(NotImplementedError):
        context.set_alpn_protocols(["http/1.1"])
    return context


def _load_into(context: ssl.SSLContext, folder: Path) -> None:
    try:
        context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password=_no_password)
    except ssl.SSLError:
        raise CertificateError(
            f"{folder / CERTIFICATE} and {KEY} are no pair that can be served with; mount a Secret of type "
            "kubernetes.io/tls"
        ) from None
    except OSError as e:
        raise CannotRun(f"{folder}: {e.strerror}; let this user read {CERTIFICATE} and {KEY}") from None


def _no_password() -> str:
    return ""  # instead of asking at a terminal


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CertificateError(f"{path} is missing; mount a Secret of type kubernetes.io/tls there") from None
    except OSError as e:
        raise CannotRun(f"{path}: {e.strerror}; let this user read it") from None
