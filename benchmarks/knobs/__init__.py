"""What tuning knobs is worth, and whether it can do harm."""
