"""Simulated workers as processes."""

from __future__ import annotations

from tests.support.mock_workers import start_worker

__all__ = ["start_worker"]
