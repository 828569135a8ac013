"""What a workload is told to trust: public roots with the session CA, in every form that a client reads."""

from sidecar.trust.anchors import Anchors
from sidecar.trust.bundle import trust_bundle
from sidecar.trust.env import env_file, env_variables
from sidecar.trust.errors import TrustError
from sidecar.trust.files import client_files, trust_files
from sidecar.trust.roots import public_roots

__all__ = [
    "Anchors",
    "TrustError",
    "client_files",
    "env_file",
    "env_variables",
    "public_roots",
    "trust_bundle",
    "trust_files",
]
