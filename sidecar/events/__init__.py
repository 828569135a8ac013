"""Events: what happened, as types; their envelope, their sinks, their summary and their schema."""
