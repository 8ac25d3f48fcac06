"""Conformance: the laws that every policy keeps, as a check for policies of your own (extra ``testing``).

In a test or a script, for a policy or for a plain function:

>>> from dynamo_planner import PoolSpec
>>> check_policy(lambda snapshot: {"workers": 3}, modes=["aggregated"], examples=5)

A broken law is reported with its name, and with a snapshot that :mod:`hypothesis` made as simple as it can be:

>>> def hopeful(snapshot):
...     return {"decode": round(snapshot.traffic.requests_per_s or 0)}
>>> check_policy(hopeful, pools={"decode": PoolSpec(role="decode")})
Traceback (most recent call last):
...
dynamo_planner.conformance.laws.ConformanceError: ... breaks the law 'missing-never-lowers': ...

The laws, in the order in which they are checked:

===================== ================================================================================================
never-raises          whatever is missing from the snapshot, there is a decision
input-unchanged       neither the snapshot nor the state is changed
within-bounds         the targets are within the specs
within-budget         no rise to more GPUs than a guard in the chain allows (``gpu_limit``), at the peak of the move
actions               they are exactly what differs, with what was there as ``expected``; what is held has a reason
same-input            the same again: no random numbers, no memory of its own
no-clock              the same at another time of day, in another year
state-json            the state goes through JSON, and decides the same
same-time             a snapshot that is not newer gets the same decision, and leaves the state as it is
missing-never-lowers  a measurement that is unknown lowers no pool; unless no requests come, freshly observed
no-state              where nothing was changed, ``state=None`` lowers no pool that would be kept with the state
state-size            at most 64 KiB as JSON, however long it ran, and no longer growing
monotone              of two constant loads, each run until it settles, the higher never has fewer replicas
===================== ================================================================================================

The parts of ``SlaPolicy`` have laws of their own: :func:`check_forecaster`, :func:`check_capacity` and
:func:`check_sizing`; and so has a fleet of several models: :func:`check_fleet`.
"""

from dynamo_planner.conformance.capacities import check_capacity
from dynamo_planner.conformance.check import check_policy
from dynamo_planner.conformance.fleets import check_fleet
from dynamo_planner.conformance.forecasters import check_forecaster
from dynamo_planner.conformance.laws import ConformanceError
from dynamo_planner.conformance.plant import Plant
from dynamo_planner.conformance.sizings import check_sizing
from dynamo_planner.conformance.strategies import snapshots, timelines

__all__ = [
    "ConformanceError",
    "Plant",
    "check_capacity",
    "check_fleet",
    "check_forecaster",
    "check_policy",
    "check_sizing",
    "snapshots",
    "timelines",
]
