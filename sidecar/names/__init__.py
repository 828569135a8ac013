"""What the sidecar's resolver says about a name: synthetic addresses, what was handed out, and what may be asked."""
