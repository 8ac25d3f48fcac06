"""The discrete-event model of one engine."""
