"""The command `tarmac`."""
