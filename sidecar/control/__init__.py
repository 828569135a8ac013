"""The sidecar's own interfaces: health on TCP, the control API on a Unix socket."""
