"""The closed sets of words that say why. They become metric labels and alert rules: words are added, never changed."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a connection or a request was allowed, denied or failed."""

    RULE_ALLOW = "rule_allow"
    RULE_DENY = "rule_deny"
    DEFAULT_ALLOW = "default_allow"
    DEFAULT_DENY = "default_deny"
    BUILTIN = "builtin"  # the host that the sidecar answers for itself
    IDENTITY_MISMATCH = "identity_mismatch"
    MALFORMED_REQUEST = "malformed_request"  # not one unambiguous HTTP request to one valid host
    PRIVATE_ADDRESS = "private_address"  # the name resolves to an address that isn't global and not excepted
    NOT_HTTP = "not_http"
    CA_CONSTRAINT = "ca_constraint"  # the CA's name constraints keep clients from accepting a leaf for the name
    NOT_REDIRECTED = "not_redirected"  # reached the transparent listener without a redirect
    UDP = "udp"
    CA_EXPIRED = "ca_expired"  # the session CA's validity is over
    POLICY_CHANGED = "policy_changed"  # allowed when it began, no longer allowed
    INTERNAL_ERROR = "internal_error"
    TIMEOUT = "timeout"
    OVERLOAD = "overload"  # more than the sidecar's limits let it do at once
    TOO_MANY_CONNECTIONS = "too_many_connections"
    HEAD_TOO_SLOW = "head_too_slow"
    HEAD_TOO_LARGE = "head_too_large"
    FLOOD = "flood"  # more of what costs the sender nothing than a client has use for
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_DISCONNECTED = "upstream_disconnected"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_UNRESOLVED = "upstream_unresolved"
    UPSTREAM_TLS = "upstream_tls"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_PROXY = "upstream_proxy"  # the company's own proxy refuses, or can't be reached
    SHUTDOWN = "shutdown"


class HandshakeReason(StrEnum):
    """Why a TLS handshake failed, on the workload's side (``tls_client_…``) or on the upstream's."""

    CLIENT_REJECTED_CA = "tls_client_rejected_ca"
    CLIENT_REJECTED_CERTIFICATE = "tls_client_rejected_certificate"  # an alert that a pin or another check may send
    CLIENT_CLOSED = "tls_client_closed"  # hung up without an alert
    CLIENT_CLOSED_AFTER_HANDSHAKE = "tls_client_closed_after_handshake"  # handshake done, no byte sent: a pin, perhaps
    CLIENT_VERSION = "tls_client_version"
    CLIENT_CIPHERS = "tls_client_ciphers"
    CLIENT_HELLO = "tls_client_hello"  # not a ClientHello that can be parsed
    CLIENT_OTHER = "tls_client_other"
    UPSTREAM_CERTIFICATE = "tls_upstream_certificate"  # chain or validity
    UPSTREAM_NAME = "tls_upstream_name"  # a certificate for another name
    UPSTREAM_CLIENT_CERTIFICATE = "tls_upstream_client_certificate"  # it wants one, or refuses ours
    UPSTREAM_VERSION = "tls_upstream_version"
    UPSTREAM_CIPHERS = "tls_upstream_ciphers"
    UPSTREAM_NOT_TLS = "tls_upstream_not_tls"
    UPSTREAM_CLOSED = "tls_upstream_closed"
    UPSTREAM_OTHER = "tls_upstream_other"
    INTERNAL_ERROR = "internal_error"


class RotationReason(StrEnum):
    """Why a new CA was taken."""

    SAME_ROOT = "same_root"
    OVERLAP_OVER = "overlap_over"
    OLD_ROOT_WITHDRAWN = "old_root_withdrawn"  # the trust bundle holds the new one alone
    OLD_CA_EXPIRED = "old_ca_expired"
    NO_TRUST_BUNDLE = "no_trust_bundle"  # the sidecar doesn't know what the workload trusts


class PendingReason(StrEnum):
    """Why a new CA isn't taken yet."""

    OVERLAP = "overlap"  # the trust bundle holds both roots, not yet long enough
    NEW_ROOT_MISSING = "new_root_missing"  # in the trust bundle
    BUNDLE_UNREADABLE = "bundle_unreadable"
