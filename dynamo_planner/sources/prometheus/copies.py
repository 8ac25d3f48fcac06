"""Copies: the same process of a worker, scraped by several jobs or by several servers.

A target is identified by its worker and its address (``instance``, and what stands behind it where a server passes on
what others scraped). Several series ``up`` of one address differ in the labels in which its copies differ, whichever
these are. The addresses of several processes of a worker are no copies, nor are several pods behind one address.

>>> up = lambda **labels: tuple(sorted({"__name__": "up", "pod": "a", "instance": "10.0.0.1:8000", **labels}.items()))
>>> vector = {up(job="llm", service="llm"): 1.0, up(job="pods"): 1.0, up(job="pods", instance="10.0.0.1:9000"): 1.0}
>>> copy_labels(vector, {}, {}, "pod")
('job', 'service')
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dynamo_planner.sources import series
from dynamo_planner.sources.prometheus.api import Matrix, QueryError, Vector

ADDRESS = "instance"
POD, NAMESPACE, CLUSTER = "pod", "namespace", "cluster"
BEHIND = ("exported_instance", POD, "exported_pod", CLUSTER)
"""Labels that tell the processes behind one address apart, where their values differ."""

OF_TARGETS = frozenset(
    {"job", "service", "endpoint", "container", "prometheus", "prometheus_replica", "replica", "monitor", "scrape_job"}
)
"""Labels that a server gives to targets: where there is no ``up``, an engine's own series may differ in others."""

Labels = Mapping[str, str]


def copy_labels(targets: Vector, engines: Vector, started: Vector, worker_label: str) -> tuple[str, ...]:
    """The labels in which copies differ; empty where there are none.

    Args:
        targets: ``up``, or where there is none a metric of the engine.
        engines: at which addresses each worker has metrics of the engine.
        started: when the processes began, by target. Addresses of a worker whose processes began at the same moment are
            of one process, such as that of a sidecar that passes a page on; so are those of one port of a pod.
        worker_label: the label that distinguishes workers.
    """
    addresses = (ADDRESS,) if worker_label != ADDRESS and one_process_each(engines, started, worker_label) else ()
    found: set[str] = set()
    for every in _groups(targets, worker_label, addresses).values():
        if len(every) > 1:
            names = {name for labels in every for name in labels}
            differing = {name for name in names if len({labels.get(name) for labels in every}) > 1}
            found |= differing if every[0].get("__name__") == "up" else differing & {*OF_TARGETS, *addresses}
    return tuple(sorted(found - {"__name__"}))


def describe_copies(copied: Vector, worker_label: str, labels: tuple[str, ...]) -> dict[str, str]:
    """What is to be said of each worker whose series come several times."""
    remarks = {}
    for (worker, _), every in _groups(copied, worker_label, labels).items():
        if len(every) > 1:
            values = {name: sorted({each.get(name, "") for each in every}) for name in labels}
            told = (f"{name} {' and '.join(map(repr, each))}" for name, each in values.items() if len(each) > 1)
            remarks[worker] = f"Prometheus has its series {len(every)} times ({', '.join(told)}): they are counted once"
    return remarks


def shared_targets(targets: Mapping[str, Vector | QueryError]) -> dict[str, str]:
    """For each pool that has targets of an earlier one, that it has: their requests would count twice."""
    pool_of: dict[series.Labels, str] = {}
    shared = {}
    for name, vector in targets.items():
        for labels in () if isinstance(vector, QueryError) else vector:
            other = pool_of.setdefault(labels, name)
            if other != name:
                shared[name] = f"it has targets of pool {other!r}, too: their labels overlap"
    return shared


def every_series(answer: Matrix | QueryError) -> Vector | QueryError:
    """The series of all moments as those of one."""
    if isinstance(answer, QueryError):
        return answer
    return {labels: value for vector in answer.values() for labels, value in vector.items()}


def one_process_each(engines: Vector, started: Vector, worker_label: str, *, by_port: bool = True) -> bool:
    """Whether some workers have several addresses, those of each are of one process, and each address is of a worker.

    The arguments are those of :func:`copy_labels`, and whether one port of a pod is enough without a start time.
    """
    began: dict[tuple[str, str], set[float]] = {}
    for target, value in started.items():
        labels = dict(target)
        began.setdefault((labels.get(worker_label, ""), labels.get(ADDRESS, "")), set()).add(value)
    by_worker: dict[str, dict[str, str | None]] = {}
    for target in engines:
        labels = dict(target)
        pod = "/".join(labels.get(each, "") for each in (CLUSTER, NAMESPACE, POD)) if POD in labels else None
        by_worker.setdefault(labels.get(worker_label, ""), {})[labels.get(ADDRESS, "")] = pod
    several = {worker: addresses for worker, addresses in by_worker.items() if len(addresses) > 1}
    return bool(several) and all(
        worker and _is_one_process([began.get((worker, address), set()) for address in addresses], addresses, by_port)
        for worker, addresses in several.items()
    )


def unclear_addresses(engines: Vector, started: Vector, worker_label: str) -> str:
    """That pods have several addresses, and it is unclear whether these are of one process; empty where it is not so.

    The arguments are those of :func:`copy_labels`.
    """
    if worker_label != ADDRESS or not one_process_each(engines, started, POD):
        return ""
    by_pod: dict[str, list[str]] = {}
    for labels in map(dict, engines):
        by_pod.setdefault(labels.get(POD, ""), []).append(labels.get(ADDRESS, ""))
    pod, addresses = next((pod, each) for pod, each in sorted(by_pod.items()) if len(each) > 1)
    return (
        f"pod {pod!r} is scraped at {' and '.join(sorted(addresses))}, and without a start time nothing shows whether "
        "that is one process: name what tells workers apart (worker_label: pod)"
    )


def _is_one_process(began: Sequence[set[float]], pod_of: Mapping[str, str | None], by_port: bool) -> bool:
    if all(began):
        return len(set.union(*began)) == 1
    if not by_port:
        return False
    ports, pods = {address.rpartition(":")[2] for address in pod_of}, set(pod_of.values())
    return len(pods) == 1 and None not in pods and len(ports) == 1


def _groups(samples: Vector, worker_label: str, copies: Sequence[str]) -> dict[tuple[str, str], list[Labels]]:
    """The labels of series, by their worker and address. Those of no worker are left out."""
    groups: dict[tuple[str, str], list[Labels]] = {}
    for labels in map(dict, samples):
        if worker := labels.get(worker_label):
            address = "" if ADDRESS in copies else labels.get(ADDRESS, "")
            groups.setdefault((worker, address), []).append(labels)
    for label in BEHIND:
        for (worker, address), every in list(groups.items()):
            values = {labels[label] for labels in every if label in labels}
            if len(values) > 1:
                del groups[worker, address]
                for value in values:
                    groups[worker, f"{address} {value}"] = [labels for labels in every if labels.get(label) == value]
    return groups
