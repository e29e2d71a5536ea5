"""Messages to people: a session ended, waits too long, a GPU is in quarantine, a model came into production."""
