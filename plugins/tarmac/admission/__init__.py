"""Decisions of admission: estimate, placement, reasons. Pure: no I/O, no clock, no randomness."""
