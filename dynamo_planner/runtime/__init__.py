"""The control loop, and what stands around it: log, state file, metrics and health."""
