"""The comparison: what the sidecar costs beside plain mitmdump, measured in one interleaved run on loopback."""
