"""Request traces: read, generated, or taken from history."""
