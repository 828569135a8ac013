"""Pods that nobody prepared: what a webhook adds to them, and what it refuses. Values in, JSON Patch operations out."""
