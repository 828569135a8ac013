"""Which clients enforce a CA's name constraints, and on which certificate: ``python -m tests.constraints`` measures."""
