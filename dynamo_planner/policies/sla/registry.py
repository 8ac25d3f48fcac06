"""The kinds of parts that :class:`~dynamo_planner.policies.sla.SlaPolicy` is wired of, beside its forecaster."""

from __future__ import annotations

from typing import Any

from dynamo_planner.core.component import Kinds
from dynamo_planner.policies.sla.attainment import ATTAINMENTS
from dynamo_planner.policies.sla.capacity import CAPACITIES
from dynamo_planner.policies.sla.plan import PLANS
from dynamo_planner.policies.sla.sizing import SIZINGS
from dynamo_planner.policies.sla.startup import STARTUPS
from dynamo_planner.policies.sla.workload import WORKLOADS

PARTS: tuple[Kinds[Any], ...] = (WORKLOADS, STARTUPS, CAPACITIES, SIZINGS, ATTAINMENTS, PLANS)
