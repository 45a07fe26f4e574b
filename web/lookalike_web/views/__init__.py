"""The views, a module per concern: parse, call, respond."""
