"""Hosts that the sidecar answers itself, whatever the policy says of them."""

TRUST_HOST = "trust.egress.internal"
