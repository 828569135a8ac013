"""mitmproxy addons: thin translations between mitmproxy's hooks and the core in ``sidecar``."""
