"""A discrete-event simulator of admission that runs the real `plan` and `estimate`, and its traces."""
