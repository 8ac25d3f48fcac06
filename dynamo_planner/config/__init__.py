"""Policies and runs as data, and assembling what they describe."""
