"""Holds the policy in force: swapped whole, numbered, never half."""

from dataclasses import replace

from sidecar.policy import Policy


class PolicyStore:
    """The policy in force. Reading is a plain attribute access: a decision asks once and keeps what it got."""

    def __init__(self, policy: Policy) -> None:
        self._policy = replace(policy, generation=1)

    def __call__(self) -> Policy:
        return self._policy

    def swap(self, policy: Policy) -> Policy:
        """Put *policy* in force, as the next generation."""
        self._policy = replace(policy, generation=self._policy.generation + 1)
        return self._policy
