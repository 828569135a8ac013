"""The bypass matrix: what a hostile workload may try, with the fence and without; ``python -m tests.live.bypass``."""
