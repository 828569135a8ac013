"""Certificates and keys as values: the session CA, the leaves it signs, and what a mounted CA must satisfy."""

from sidecar.pki.leaf import LeafMinter
from sidecar.pki.load import CaText, parse_ca
from sidecar.pki.session_ca import CaConstraint, CaError, SessionCa, issue_session_ca

__all__ = ["CaConstraint", "CaError", "CaText", "LeafMinter", "SessionCa", "issue_session_ca", "parse_ca"]
