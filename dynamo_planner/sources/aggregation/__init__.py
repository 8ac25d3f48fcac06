"""From samples of workers to the quantities of pools and of a service."""
