"""A Prometheus server as a source."""
