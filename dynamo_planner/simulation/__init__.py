"""Simulated engines, the workers that they make, and the traces of requests to drive them with."""
