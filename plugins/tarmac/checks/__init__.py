"""What the world says of a request before a run starts: data sets, trainer, GPUs, base model."""
