"""GPUs: which devices there are and whether they can be used. Only `devices` imports pynvml."""
