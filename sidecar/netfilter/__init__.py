"""The fence: nftables rules that leave the workload no way out but the sidecar."""
