"""`sidecar exec --enforce`: one command in namespaces of its own, from which only the sidecar can be reached."""
