"""Manifests for one session: the same core as the webhook, for people who create their pods themselves."""
