"""Files as label tools export them, read as lines that Tarmac trains on."""
