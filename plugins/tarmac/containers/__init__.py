"""Everything that touches Docker. Only this package imports `docker`."""
