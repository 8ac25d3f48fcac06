"""Core: the pure contract of values, snapshots, decisions, policies and guards."""
