"""The trainer of Tarmac: the commands of the trainer contract, version 1, for spaCy models.

Nothing here imports a heavy library at module level: every step of a session starts this package in
a fresh container, and `health` is asked every few seconds.
"""

__version__ = "0.1.0"
