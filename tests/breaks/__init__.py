"""One small break per promise: `make test-breaks` applies each to a copy, and fails where the tests stay green."""
