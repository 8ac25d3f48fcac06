"""Watching a planner: its metrics, whether it is alive and ready, and the page that tells (extra ``prometheus``)."""
