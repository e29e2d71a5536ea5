"""Hosts: engines near and far, how another machine is reached, what a machine has and what sessions may reserve."""
