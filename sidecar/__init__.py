"""An egress sidecar: every outbound connection of a workload is intercepted, decided and recorded."""

__version__ = "0.1.0"
