"""What can be wrong with what a workload is to trust."""

from sidecar.errors import SidecarError


class TrustError(SidecarError):
    """The trust files can't be made as asked."""
