"""GPUs as they are: snapshots, and calls to NVML."""
