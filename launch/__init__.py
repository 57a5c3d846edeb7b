"""The command line, and sweeps that can be run as they are."""
