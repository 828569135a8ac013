"""
Which clients trust the session CA, by what: each fetches one page through the sidecar, in transparent mode.

``python -m tests.clients`` runs all of them and writes docs/clients.md. It needs root, and what `tests.clients.tools`
names.
"""
