"""Scaling rules of other systems, as baselines to compare with."""
