"""The fence check: canaries that must not leave the pod, what became of them, and what that proves."""
