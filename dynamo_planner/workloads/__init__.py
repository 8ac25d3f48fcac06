"""Request traces: when requests arrive, and how long their prompts and answers are.

Read from files (``Trace.load``), generated (``poisson``, ``following`` a rate curve, ``burst_and_lull``), or taken from
the history of a service (``trace_of``).
"""

from dynamo_planner.workloads.formats.base import Columns, TraceError, TraceFormat
from dynamo_planner.workloads.formats.csv_table import CsvTable
from dynamo_planner.workloads.formats.registry import TRACE_FORMATS
from dynamo_planner.workloads.from_history import trace_of
from dynamo_planner.workloads.generators import LogNormalLengths, burst_and_lull, drifting, following, poisson
from dynamo_planner.workloads.rate_curves import constant, diurnal, flash_crowd, on_off, ramp, rise_and_fall
from dynamo_planner.workloads.trace import Trace, TraceStats

__all__ = [
    "TRACE_FORMATS",
    "Columns",
    "CsvTable",
    "LogNormalLengths",
    "Trace",
    "TraceError",
    "TraceFormat",
    "TraceStats",
    "burst_and_lull",
    "constant",
    "diurnal",
    "drifting",
    "flash_crowd",
    "following",
    "on_off",
    "poisson",
    "ramp",
    "rise_and_fall",
    "trace_of",
]
