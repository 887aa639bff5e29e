"""Runs untrusted code in contained processes: `run.py` is the way in, `containment.py` says what the host enforces."""
