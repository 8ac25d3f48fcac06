"""The contract: values, snapshots, decisions, policies and guards. Pure."""
