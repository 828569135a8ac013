"""What failed handshakes mean, from the words that OpenSSL and mitmproxy 12.2.3 were heard to say."""

import pytest

from sidecar.handshakes import alert_of, diagnose_client, diagnose_server, established_but_unused
from sidecar.reasons import HandshakeReason as R

HUNG_UP = (
    "The client disconnected during the handshake. If this happens consistently for a.test, this may indicate that "
    "the client does not trust the proxy's certificate."
)
NO_VERSION = (
    "{} and mitmproxy cannot agree on a TLS version to use. "
    "You may need to adjust mitmproxy's tls_version_{}_min option."
)
TRUSTS_NOT = "The client does not trust the proxy's certificate for a.test ({})"
MAY_NOT = "The client may not trust the proxy's certificate for a.test (OpenSSL Error([('SSL routines', '', '{}')]))"


@pytest.mark.parametrize(
    ("words", "answered", "reason", "alert", "suspected"),
    [
        pytest.param(
            TRUSTS_NOT.format("tlsv1 alert unknown ca"),
            True,
            R.CLIENT_REJECTED_CA,
            "unknown_ca",
            False,
            id="curl, openssl and Python",
        ),
        pytest.param(
            TRUSTS_NOT.format("sslv3 alert bad certificate"),
            True,
            R.CLIENT_REJECTED_CA,
            "bad_certificate",
            False,
            id="Go, with OpenSSL 3.0 here",
        ),
        pytest.param(
            TRUSTS_NOT.format("ssl/tls alert bad certificate"),
            True,
            R.CLIENT_REJECTED_CA,
            "bad_certificate",
            False,
            id="Go, with OpenSSL 3.2 here",
        ),
        pytest.param(
            MAY_NOT.format("sslv3 alert certificate unknown"),
            True,
            R.CLIENT_REJECTED_CA,
            "certificate_unknown",
            False,
            id="Java, with OpenSSL 3.0 here",
        ),
        pytest.param(
            MAY_NOT.format("ssl/tls alert certificate unknown"),
            True,
            R.CLIENT_REJECTED_CA,
            "certificate_unknown",
            False,
            id="Java, with OpenSSL 3.2 here",
        ),
        pytest.param(
            MAY_NOT.format("sslv3 alert certificate expired"),
            True,
            R.CLIENT_REJECTED_CERTIFICATE,
            "certificate_expired",
            False,
            id="a client whose clock is wrong",
        ),
        pytest.param(HUNG_UP, True, R.CLIENT_REJECTED_CA, None, True, id="Node under TLS 1.3"),
        pytest.param(HUNG_UP, False, R.CLIENT_CLOSED, None, True, id="a client that hangs up within its ClientHello"),
        pytest.param(
            "connection closed early", False, R.CLIENT_CLOSED, None, True, id="a client that is gone before the answer"
        ),
        pytest.param(NO_VERSION.format("Client", "client"), True, R.CLIENT_VERSION, None, False, id="TLS 1.1 only"),
        pytest.param(MAY_NOT.format("no shared cipher"), True, R.CLIENT_CIPHERS, None, False, id="no common cipher"),
        pytest.param(
            "Cannot parse ClientHello: it is none, or too large a one",
            False,
            R.CLIENT_HELLO,
            None,
            False,
            id="garbage in a record",
        ),
        pytest.param(
            MAY_NOT.format("tlsv1 alert decode error"),
            True,
            R.CLIENT_OTHER,
            "decode_error",
            False,
            id="an alert of no known meaning",
        ),
        pytest.param("something new", True, R.CLIENT_OTHER, None, False, id="words that nobody knows"),
    ],
)
def test_a_clients_handshake(words: str, answered: bool, reason: R, alert: str | None, suspected: bool) -> None:
    diagnosis = diagnose_client(words, answered=answered)

    assert (diagnosis.reason, diagnosis.alert, diagnosis.suspected) == (reason, alert, suspected)
    assert diagnosis.hint


@pytest.mark.parametrize(
    ("words", "reason", "suspected"),
    [
        pytest.param(None, R.CLIENT_REJECTED_CA, True, id="Node under TLS 1.2 hangs up without a word"),
        pytest.param(
            "ssl/tls alert close notify", R.CLIENT_CLOSED_AFTER_HANDSHAKE, True, id="curl's pin closes in order"
        ),
        pytest.param(
            "[('SSL routines', '', 'tlsv1 alert unknown ca')]",
            R.CLIENT_REJECTED_CA,
            False,
            id="NSS sends its alert late",
        ),
        pytest.param(
            "[('SSL routines', '', 'sslv3 alert bad certificate')]",
            R.CLIENT_REJECTED_CA,
            False,
            id="another late alert",
        ),
    ],
)
def test_a_handshake_that_was_completed_for_nothing(words: str | None, reason: R, suspected: bool) -> None:
    diagnosis = established_but_unused(words)

    assert (diagnosis.reason, diagnosis.suspected) == (reason, suspected)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        pytest.param("Certificate verify failed: hostname mismatch", R.UPSTREAM_NAME, id="another name"),
        pytest.param("Certificate verify failed: IP address mismatch", R.UPSTREAM_NAME, id="another address"),
        pytest.param(
            "Certificate verify failed: unable to get local issuer certificate",
            R.UPSTREAM_CERTIFICATE,
            id="an unknown root",
        ),
        pytest.param(
            "Certificate verify failed: certificate has expired", R.UPSTREAM_CERTIFICATE, id="an expired certificate"
        ),
        pytest.param("The remote server does not speak TLS.", R.UPSTREAM_NOT_TLS, id="plain HTTP"),
        pytest.param(NO_VERSION.format("The remote server", "server"), R.UPSTREAM_VERSION, id="old versions only"),
        pytest.param(
            "OpenSSL Error([('SSL routines', '', 'sslv3 alert handshake failure')])",
            R.UPSTREAM_CIPHERS,
            id="no common cipher",
        ),
        pytest.param(
            "OpenSSL Error([('SSL routines', '', 'tls alert handshake failure')])",
            R.UPSTREAM_CIPHERS,
            id="no common cipher, with OpenSSL 4.0",
        ),
        pytest.param("tlsv1 alert unknown ca", R.UPSTREAM_CLIENT_CERTIFICATE, id="our client certificate's CA"),
        pytest.param("Certificate verify failed: certificate revoked", R.UPSTREAM_CERTIFICATE, id="revoked"),
        pytest.param("connection closed", R.UPSTREAM_CLOSED, id="an upstream that hangs up"),
        pytest.param("something new", R.UPSTREAM_OTHER, id="words that nobody knows"),
    ],
)
def test_an_upstreams_handshake(words: str, reason: R) -> None:
    assert diagnose_server(words).reason is reason


@pytest.mark.parametrize(
    ("words", "alert"),
    [
        ("tlsv1 alert unknown ca", "unknown_ca"),
        ("ssl/tls alert bad certificate", "bad_certificate"),
        ("tls alert handshake failure", "handshake_failure"),
        ("tlsv13 alert certificate required", "certificate_required"),
        ("no shared cipher", None),
        ("tlsv1 alert of a kind that there isn't", None),
    ],
)
def test_the_alert_in_openssls_words(words: str, alert: str | None) -> None:
    assert alert_of(words) == alert


@pytest.mark.parametrize("option", ["ca_leaf", "missing_staple", "long_lived"])
def test_the_hint_names_the_option_that_would_accept_it(option: str) -> None:
    diagnosis = diagnose_server("Certificate verify failed: the certificate is odd", accept=option)

    assert f"accept: [{option}]" in diagnosis.hint


def test_the_hint_names_the_options_for_suites() -> None:
    diagnosis = diagnose_server("OpenSSL Error([('SSL routines', '', 'tls alert handshake failure')])")

    assert "accept: [cbc] or [static_rsa]" in diagnosis.hint
