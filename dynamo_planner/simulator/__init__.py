"""The discrete-event simulator of a cluster of engines."""
