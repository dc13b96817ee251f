"""Faults under load, judged from outside: `python -m tests.faults.suite`; see docs/faults.md."""
