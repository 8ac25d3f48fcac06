"""Simulated workers as processes, and a client of theirs."""

from __future__ import annotations

from tests.support.mock_workers import client, start_worker

__all__ = ["client", "start_worker"]
