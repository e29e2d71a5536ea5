"""Messages to people: of sessions, of GPUs and hosts that take none, of what came into production."""
