"""Named mutants: faults that were once in a policy, or are easy to make."""

NAMED: dict[str, tuple[str, str, str]] = {}
"""By name: the file, a text that stands in it once, and what a fault makes of it."""
