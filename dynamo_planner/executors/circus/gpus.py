"""Detection of GPUs, and the check that they suffice for the minimums."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus.pool import CircusPool

try:
    import pynvml
except ModuleNotFoundError:
    pynvml = None

logger = logging.getLogger(__name__)

_NONE_VISIBLE = ("", "-1", "NoDevFiles")


def detect_gpus() -> tuple[int, ...]:
    """The numbers of this machine's GPUs in PCI order, of those that ``CUDA_VISIBLE_DEVICES`` leaves to this process.

    Needs ``nvidia-ml-py`` (extra ``gpu``) and NVIDIA's driver; without either there are none.
    """
    if pynvml is None:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        logger.info("no GPUs: %s", error)
        return ()
    try:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            return tuple(range(pynvml.nvmlDeviceGetCount()))
        if visible.strip() in _NONE_VISIBLE:
            return ()
        return tuple(_index(pynvml, entry) for entry in visible.split(",") if entry.strip())
    finally:
        pynvml.nvmlShutdown()


def _index(nvml: Any, entry: str) -> int:
    entry = entry.strip()
    if entry.isdecimal():
        return int(entry)
    try:
        return int(nvml.nvmlDeviceGetIndex(nvml.nvmlDeviceGetHandleByUUID(entry)))
    except nvml.NVMLError as error:
        raise ExecutorError(
            f"CUDA_VISIBLE_DEVICES: {entry!r} is no GPU of this machine ({error}): name gpus"
        ) from error


def check_gpus(gpus: Sequence[int], pools: Mapping[str, CircusPool]) -> None:
    """Raise :class:`ValueError` where the pools need more GPUs than there are, before anything is started."""
    if len(set(gpus)) != len(gpus) or any(gpu < 0 for gpu in gpus):
        raise ValueError(f"gpus: {list(gpus)} must be different numbers of at least 0")
    needs = {name: pool.spec.min_replicas * pool.spec.gpus for name, pool in pools.items()}
    if sum(needs.values()) > len(gpus):
        parts = ", ".join(
            f"{name} {pool.spec.min_replicas} x {pool.spec.gpus}" for name, pool in pools.items() if needs[name]
        )
        raise ValueError(
            f"the pools' minimums need {sum(needs.values())} GPUs ({parts}) and there are {len(gpus)}: "
            "lower min_replicas or spec.gpus (0 for workers without), or name gpus"
        )
