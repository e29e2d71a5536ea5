"""Data sets: fetched from the store, checked line by line, split; their overlap with what a model was trained on."""
