"""Simulated engines, the workers that they make, llama.cpp workers, and the traces of requests to drive them with."""
