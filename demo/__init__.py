"""``make demo``: real clients are allowed, denied and distrusted, on this machine alone; every outcome is checked."""
