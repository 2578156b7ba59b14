"""Speed: what this machine could train at most, what we train, what others train. See `speed`."""
