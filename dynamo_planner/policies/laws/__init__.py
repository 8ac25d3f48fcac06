"""Scaling rules of other systems, to compare with."""
