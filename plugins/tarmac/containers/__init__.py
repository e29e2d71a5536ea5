"""Docker: volumes, containers and fencing, mounts, the trainer's protocol, GPU passthrough."""
