"""Hosts: what the machine of an engine has, and what of it sessions may reserve."""
