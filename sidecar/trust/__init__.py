"""What a workload is told to trust: the public roots with the session CA, and the variables that point to them."""

from sidecar.trust.bundle import trust_bundle, trust_files
from sidecar.trust.env import TrustError, env_file, env_variables
from sidecar.trust.roots import public_roots

__all__ = ["TrustError", "env_file", "env_variables", "public_roots", "trust_bundle", "trust_files"]
