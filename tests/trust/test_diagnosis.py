"""From what a client said to a verdict and a fix: recorded words, and every cause that the doctor tells apart."""

import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath

import pytest

from sidecar.trust.clients import CLIENTS, JAVA, PYTHON_CLIENTS, Client
from sidecar.trust.diagnosis import File, Finding, Found, Scene, bypasses, diagnose
from sidecar.trust.env import env_variables
from sidecar.trust.fixes import How
from sidecar.trust.java_store import Named, java_trust_store
from sidecar.trust.outcomes import Outcome, Said

OF = {client.name: client for client in (*CLIENTS, *PYTHON_CLIENTS, JAVA)}
TRUST = PurePath("/etc/egress/trust")
SYSTEM = PurePath("/etc/ssl/certs/ca-certificates.crt")
OTHER = "/home/me/roots.pem"
REFUSED = {
    "curl": Said(code=60, text="curl: (60) SSL certificate problem: unable to get local issuer certificate"),
    "wget": Said(code=5, text="ERROR: The certificate of 'trust.egress.internal' is not trusted."),
    "java": Said(code=1, text="javax.net.ssl.SSLHandshakeException: PKIX path building failed"),
    "node": Said(code=1, text="Error: unable to verify the first certificate"),
    "chromium": Said(code=0, text="Page load failed: net::ERR_CERT_AUTHORITY_INVALID"),
    "requests": Said(code=1, text="requests.exceptions.SSLError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify"),
    "deno": Said(code=1, text="\x1b[31merror\x1b[0m: invalid peer certificate: UnknownIssuer"),
}


def scene(environment: Mapping[str, str] | None = None, *files: File, **fields: object) -> Scene:
    """Files that aren't given aren't there; the trust folder's are, and the system's, which is read-only."""
    there = {
        file.path: file
        for file in (
            File(path=TRUST / "ca.pem", certificates=1, holds=True),
            File(path=TRUST / "bundle.pem", certificates=140, holds=True),
            *files,
        )
    }
    values = {
        "environment": environment or {},
        "trust": TRUST,
        "system": File(path=SYSTEM, certificates=140),
        "update": None,
        "look": lambda path: there.get(PurePath(path), File(path=PurePath(path), exists=False, readable=False)),
        "no_proxy": False,
        "home": PurePath("/home/me"),
    }
    return Scene(**(values | fields))  # type: ignore[arg-type]


def found(name: str, **fields: object) -> Found:
    return replace(Found(client=OF[name], program=f"/usr/bin/{name}", label=name), **fields)  # type: ignore[arg-type]


def finding(name: str, where: Scene, said: Said | None = None) -> Finding:
    return diagnose(found(name), said or REFUSED[name], where)


@pytest.mark.parametrize(
    ("name", "code", "text", "expected"),
    [
        pytest.param("curl", 0, '{"answered_by":"egress-sidecar"}', Outcome.TRUSTED, id="it got the answer"),
        pytest.param("curl", 0, "hello from somebody else", Outcome.FAILED, id="exit code 0 with another answer"),
        pytest.param("npm", 0, "", Outcome.TRUSTED, id="a client that shows nothing says it by its exit code"),
        pytest.param("git", 128, "fatal: https://trust.egress.internal/info/refs not valid: is this a git repository?",
                     Outcome.TRUSTED, id="git was answered, by no repository"),
        pytest.param("pip", 1, "ERROR: Wheel 'doctor' located at /tmp/x.whl is invalid.", Outcome.TRUSTED,
                     id="pip was answered, by no package"),
        pytest.param("cargo", 101, "expected a Content-Type header with `application/x-git-upload-pack-advertisement`",
                     Outcome.TRUSTED, id="cargo was answered, by no repository"),
        pytest.param("git", 128, "server certificate verification failed. CAfile: none CRLfile: none",
                     Outcome.UNTRUSTED, id="GnuTLS under git"),
        pytest.param("go", 1, "x509: certificate signed by unknown authority", Outcome.UNTRUSTED, id="Go"),
        pytest.param("uv", 2, "cause: invalid peer certificate: UnknownIssuer", Outcome.UNTRUSTED, id="rustls"),
        pytest.param("curl", 77, "curl: (77) error setting certificate file: /x", Outcome.UNTRUSTED, id="no such file"),
        pytest.param("requests", 1, "OSError: Could not find a suitable TLS CA certificate bundle, invalid path: /x",
                     Outcome.UNTRUSTED, id="no such file, for requests"),
        pytest.param("java", 1, "trustAnchors parameter must be non-empty", Outcome.UNTRUSTED, id="no keystore"),
        pytest.param("perl-lwp", 255, "500 error:0A000086:SSL routines::certificate verify failed",
                     Outcome.UNTRUSTED, id="OpenSSL under Perl"),
        pytest.param("curl", 6, "curl: (6) Could not resolve host: trust.egress.internal", Outcome.UNREACHABLE,
                     id="no such name"),
        pytest.param("curl", 7, "curl: (7) Failed to connect to 127.0.0.1", Outcome.UNREACHABLE, id="no proxy"),
        pytest.param("curl", 22, '{"title":"Refused by the egress sidecar","reason":"overload"}', Outcome.DENIED,
                     id="the sidecar refuses"),
        pytest.param("curl", 0, "* CAfile: /x\n* SSL certificate verify ok.\n< HTTP/1.1 403 ", Outcome.DENIED,
                     id="curl tells of certificates when all is well, too"),
        pytest.param("curl", 56, "* CAfile: /x\n* SSL certificate verify ok.\ncurl: (56) Recv", Outcome.FAILED,
                     id="cut off after TLS"),
        pytest.param("curl", None, "", Outcome.TIMED_OUT, id="it had to be killed"),
        pytest.param("curl", None, "SSL certificate problem", Outcome.UNTRUSTED, id="it tries again and again"),
        pytest.param("curl", -11, "", Outcome.FAILED, id="it crashed"),
        pytest.param("cargo", 1, "error: rustup could not choose a version of cargo to run", Outcome.FAILED,
                     id="it didn't come so far"),
    ],
)  # fmt: skip
def test_outcomes(name: str, code: int | None, text: str, expected: Outcome) -> None:
    assert finding(name, scene(), Said(code=code, text=text)).outcome is expected


def test_a_client_without_a_variable_is_given_the_one_that_it_reads_first() -> None:
    got = finding("requests", scene())

    assert got.why == "none of REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE is set"
    assert [fix.text for fix in got.fixes] == ["export REQUESTS_CA_BUNDLE=/etc/egress/trust/bundle.pem"]


def test_a_client_that_adds_is_given_the_ca_alone() -> None:
    assert [f.text for f in finding("node", scene()).fixes] == ["export NODE_EXTRA_CA_CERTS=/etc/egress/trust/ca.pem"]


def test_where_no_variable_is_set_all_are_set_at_once() -> None:
    bare = scene({}, File(path=TRUST / "env"))

    assert {finding(name, bare).fixes[0].text for name in ("curl", "node")} == {
        "set -a; . /etc/egress/trust/env; set +a"
    }


def test_where_some_are_set_none_of_these_is_overwritten() -> None:
    some = scene({"PIP_CERT": OTHER}, File(path=TRUST / "env"))

    assert finding("node", some).fixes[0].text == "export NODE_EXTRA_CA_CERTS=/etc/egress/trust/ca.pem"


@pytest.mark.parametrize(
    ("file", "why", "fix"),
    [
        pytest.param(None, "which isn't there", "export CURL_CA_BUNDLE=/etc/egress/trust/bundle.pem", id="missing"),
        pytest.param(File(path=PurePath(OTHER), readable=False), "which this user can't read",
                     "export CURL_CA_BUNDLE=/etc/egress/trust/bundle.pem", id="unreadable"),
        pytest.param(File(path=PurePath(OTHER), certificates=3, writable=True), "which lacks the session CA",
                     f"cat /etc/egress/trust/ca.pem >> {OTHER}", id="writable: nothing of the user's is lost"),
        pytest.param(File(path=PurePath(OTHER), certificates=3), "of its 3 certificates",
                     "export CURL_CA_BUNDLE=/etc/egress/trust/bundle.pem", id="read-only: what may be lost is said"),
    ],
)  # fmt: skip
def test_a_variable_that_the_user_set(file: File | None, why: str, fix: str) -> None:
    variables = {"CURL_CA_BUNDLE": OTHER, "SSL_CERT_FILE": str(TRUST / "bundle.pem")}
    got = finding("curl", scene(variables, *([file] if file else [])))

    assert got.read == f"CURL_CA_BUNDLE={OTHER}"
    assert why in got.why
    assert "it wins over SSL_CERT_FILE" in got.why
    assert [each.text for each in got.fixes] == [fix]


def test_a_file_that_is_not_there_explains_a_failure_in_whatever_words() -> None:
    got = finding("httpx", scene({"SSL_CERT_FILE": OTHER}), Said(code=1, text="[Errno 2] No such file or directory"))

    assert (got.outcome, got.why) == (Outcome.UNTRUSTED, f"SSL_CERT_FILE names {OTHER}, which isn't there")


def test_a_variable_that_names_the_systems_file_is_mended_there() -> None:
    got = finding("curl", scene({"CURL_CA_BUNDLE": str(SYSTEM)}, File(path=SYSTEM, certificates=140)))

    assert [fix.how for fix in got.fixes] == [How.MOUNT]


def test_a_variable_that_the_trust_folder_does_not_know_is_taken_away() -> None:
    got = finding("perl-lwp", scene({"HTTPS_CA_FILE": OTHER}), Said(code=1, text="certificate verify failed"))

    assert [fix.text for fix in got.fixes] == ["unset HTTPS_CA_FILE"]


@pytest.mark.parametrize(
    ("system", "update", "fix"),
    [
        pytest.param(File(path=SYSTEM), None,
                     '--volume "$TRUST_DIR/bundle.pem:/etc/ssl/certs/ca-certificates.crt:ro"', id="read-only"),
        pytest.param(None, None,
                     '--volume "$TRUST_DIR/bundle.pem:/etc/ssl/certs/ca-certificates.crt:ro"', id="missing"),
        pytest.param(File(path=SYSTEM, writable=True), None,
                     f"cat /etc/egress/trust/ca.pem >> {SYSTEM}", id="writable, without a tool"),
        pytest.param(File(path=SYSTEM, writable=True), "update-ca-certificates",
                     "install -D -m 644 /etc/egress/trust/ca.pem /usr/local/share/ca-certificates/egress-sidecar.crt "
                     "&& update-ca-certificates", id="Debian and Alpine"),
        pytest.param(File(path=SYSTEM, writable=True), "/usr/bin/update-ca-trust",
                     "install -D -m 644 /etc/egress/trust/ca.pem /etc/pki/ca-trust/source/anchors/egress-sidecar.pem "
                     "&& /usr/bin/update-ca-trust", id="Fedora and RHEL"),
    ],
)  # fmt: skip
def test_the_systems_file(system: File | None, update: str | None, fix: str) -> None:
    got = finding("wget", scene(system=system, update=update))

    assert [each.text for each in got.fixes] == [fix]


def test_java_is_given_the_trust_folders_keystore_behind_what_the_user_has() -> None:
    ready = File(path=TRUST / "truststore.p12")
    option = "-Djavax.net.ssl.trustStore=/etc/egress/trust/truststore.p12"

    assert finding("java", scene({}, ready)).fixes[0].text == f"export JAVA_TOOL_OPTIONS={option}"
    mended = finding("java", scene({"JAVA_TOOL_OPTIONS": "-Xmx1g"}, ready)).fixes[0].text
    assert mended == f'export JAVA_TOOL_OPTIONS="$JAVA_TOOL_OPTIONS "{option}'


@pytest.mark.parametrize("writable", [True, False], ids=["writable", "read-only"])
def test_without_one_java_gets_the_ca_into_its_own_or_a_copy(writable: bool) -> None:
    store = File(path=PurePath("/jdk/lib/security/cacerts"), writable=writable)
    there = replace(found("java"), default=str(store.path))
    got = diagnose(there, REFUSED["java"], scene({}, store))

    assert got.read == "/jdk/lib/security/cacerts, Java's keystore"
    assert [fix.how for fix in got.fixes] == ([How.RUN] if writable else [How.RUN, How.SET])
    assert ("/tmp/egress-sidecar-cacerts" in got.fixes[0].text) is not writable


def test_nss_is_mended_by_certutil() -> None:
    (fix,) = finding("chromium", scene()).fixes

    assert fix.text.endswith(
        "certutil -d sql:/home/me/.pki/nssdb -A -t C,, -n egress-sidecar -i /etc/egress/trust/ca.pem"
    )


def test_no_proxy_is_told_from_distrust_and_loses_only_what_names_the_host() -> None:
    variables = {"NO_PROXY": "localhost,.internal,10.0.0.0/8"}
    got = finding("curl", scene(variables, no_proxy=True), Said(code=6, text="Could not resolve host"))

    assert got.outcome is Outcome.BYPASSED
    assert got.fixes[0].text == "export NO_PROXY=localhost,10.0.0.0/8 no_proxy=localhost,10.0.0.0/8"


def test_a_proxy_variable_in_capitals_alone() -> None:
    variables = {"HTTPS_PROXY": "http://user:secret@proxy:1"}
    got = finding("wget", scene(variables), Said(code=4, text="wget: unable to resolve host address"))

    assert (got.outcome, got.fixes[0].text) == (Outcome.UNREACHABLE, 'export https_proxy="$HTTPS_PROXY"')


@pytest.mark.parametrize(
    ("no_proxy", "expected"),
    [("", False), ("*", True), (".internal", True), ("internal", True), ("*.egress.internal", True),
     ("trust.egress.internal", True), ("egress.example", False), ("ternal", False), ("a, internal", True)],
)  # fmt: skip
def test_bypasses(no_proxy: str, expected: bool) -> None:
    assert bypasses(no_proxy, "trust.egress.internal") is expected


def test_the_last_word_on_the_keystore_counts() -> None:
    option = "-Djavax.net.ssl.trustStore"
    variables = {"JAVA_TOOL_OPTIONS": f"{option}=/a {option}=/b -Xmx1g", "_JAVA_OPTIONS": f"{option}='/c d'"}

    assert java_trust_store(variables) == Named("_JAVA_OPTIONS", "/c d")
    assert java_trust_store({"JAVA_TOOL_OPTIONS": "-Dx='"}) is None


def test_a_keystore_that_the_user_named_is_added_to_and_its_password_asked_for() -> None:
    options = "-Djavax.net.ssl.trustStore=/me/trust.jks -Djavax.net.ssl.trustStorePassword=secret"
    store = File(path=PurePath("/me/trust.jks"), writable=True)
    got = finding("java", scene({"_JAVA_OPTIONS": options}, store, File(path=TRUST / "truststore.p12")))

    assert got.read == "/me/trust.jks by _JAVA_OPTIONS"
    (fix,) = got.fixes
    assert fix.text.startswith("keytool -importcert") and fix.text.endswith("-keystore /me/trust.jks")
    assert "storepass" not in fix.text and "secret" not in fix.text


def test_a_keystore_that_is_gone_is_replaced_where_it_was_named() -> None:
    options = "-Djavax.net.ssl.trustStore=/me/gone.jks"
    got = finding("java", scene({"_JAVA_OPTIONS": options}, File(path=TRUST / "truststore.p12")))

    assert "which isn't there" in got.why
    option = "-Djavax.net.ssl.trustStore=/etc/egress/trust/truststore.p12"
    assert [fix.text for fix in got.fixes] == [f'export _JAVA_OPTIONS="$_JAVA_OPTIONS "{option}']


@pytest.mark.parametrize("name", ["curl", "node", "java", "chromium", "wget"])
def test_a_path_is_one_word_of_its_fix_whatever_it_holds(name: str) -> None:
    folder = PurePath("/tmp/$(touch x) 'y'; z")
    variables = {"JAVA_TOOL_OPTIONS": "-Xmx1g"} if name == "java" else {}
    system = File(path=SYSTEM, writable=True)
    where = scene(variables, File(path=folder / "truststore.p12"), trust=folder, home=folder, system=system)

    (fix,) = finding(name, where).fixes
    assert any(str(folder) in word for word in shlex.split(fix.text))


def test_what_a_terminal_would_obey_is_neither_quoted_nor_pasted() -> None:
    evil = "/x\x1b]0;evil\x07.pem"
    got = finding("curl", scene({"CURL_CA_BUNDLE": evil}, File(path=PurePath(evil), certificates=1, writable=True)))

    assert got.read.isprintable() and got.why.isprintable()
    assert got.fixes == ()
    assert finding("deno", scene({"DENO_CERT": str(TRUST / "ca.pem")})).why.endswith(
        "error: invalid peer certificate: UnknownIssuer"
    )


@pytest.mark.parametrize("client", [*CLIENTS, *PYTHON_CLIENTS, JAVA], ids=lambda client: client.name)
def test_every_client_has_a_way_to_be_mended(client: Client) -> None:
    known = env_variables(TRUST)
    where = scene()
    got = diagnose(Found(client=client, program="x", label="x"), Said(code=1, text="certificate verify failed"), where)

    assert got.outcome is Outcome.UNTRUSTED
    assert got.fixes
    assert not client.variables or any(name in known for name in client.variables)
