"""The objects of a cluster, shared by one or several executors: each kind is listed once per tick."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes.api import Api
from dynamo_planner.executors.kubernetes.api_error import ApiError
from dynamo_planner.executors.kubernetes.resources import GRAPH_VERSIONS, PODS, Resource, graphs

T = TypeVar("T")

KubeObject = dict[str, Any]

ALIVE = "status.phase!=Succeeded,status.phase!=Failed"


class Cluster:
    """An API server and what was listed of it in this tick.

    Several executors in one process share a cluster, and with it what is listed: open a :meth:`tick`, let each of
    them observe, decide and act, and close it. An executor that is alone opens its own.

    An object that is alone of its kind in a namespace is listed by its name, which a Role can be restricted to. Several
    are listed from the server's cache, see :meth:`Api.items`.
    """

    def __init__(self, api: Api) -> None:
        self.api = api
        self._names: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._listed: dict[Any, Any] | None = None
        self._lock = threading.RLock()

    @contextmanager
    def tick(self) -> Iterator[None]:
        """List each kind of object at most once until the end of this context; within another one, until that ends."""
        with self._lock:
            is_outermost = self._listed is None
            if self._listed is None:
                self._listed = {}
        try:
            yield
        finally:
            if is_outermost:
                self._listed = None

    def _once(self, key: Any, fetch: Callable[[], T]) -> T:
        """The result or error of ``fetch``, which is called at most once in a tick."""
        with self._lock:
            listed = self._listed if self._listed is not None else {}
            if key not in listed:
                try:
                    listed[key] = fetch()
                except ExecutorError as error:
                    listed[key] = error
            answer = listed[key]
        if isinstance(answer, ExecutorError):
            raise answer
        return answer  # type: ignore[no-any-return]

    def expect(self, plural: str, namespace: str, name: str) -> None:
        """Declare that this object will be read, so that few objects are listed by name."""
        self._names[plural, namespace].add(name)

    def objects(self, resource: Resource, namespace: str) -> Mapping[str, KubeObject]:
        """The objects of a kind by name: all of them, or the only expected one. Raises :class:`ApiError`."""
        names = self._names[resource.plural, namespace]
        query = {"fieldSelector": f"metadata.name={next(iter(names))}"} if len(names) == 1 else {}

        def fetch() -> dict[str, KubeObject]:
            items = self.api.items(resource, namespace, cached=len(names) > 1, **query)
            return {item["metadata"]["name"]: item for item in items}

        return self._once((resource, namespace, *query.values()), fetch)

    def find(self, resource: Resource, namespace: str, name: str) -> KubeObject:
        """One object. Raises :class:`ApiError`, with 404 where it is not there."""
        obj = self.objects(resource, namespace).get(name)
        if obj is None:
            raise ApiError(f"there is no {resource.plural} {name!r} in namespace {namespace!r}", 404)
        return obj

    def graphs(self, namespace: str) -> Resource:
        """DynamoGraphDeployments in the newest version that the server has. Raises :class:`ApiError`."""
        for version in GRAPH_VERSIONS:
            try:
                self.objects(graphs(version), namespace)
            except ApiError as error:
                if error.status != 404:
                    raise
            else:
                return graphs(version)
        versions = ", ".join(GRAPH_VERSIONS)
        raise ApiError(f"the API server has no DynamoGraphDeployments ({versions}): is Dynamo installed?", 404)

    def scale(self, resource: Resource, namespace: str, name: str) -> KubeObject:
        """The scale of one object. Raises :class:`ApiError`."""
        return self._once(
            (resource, namespace, name, "scale"), lambda: self.api.get(resource, namespace, name, "scale")
        )

    def pods(self, namespace: str, selector: str) -> list[KubeObject]:
        """The pods that a selector names, without those that ended. Raises :class:`ApiError`."""

        def fetch() -> list[KubeObject]:
            unread = ("spec", "managedFields")
            return self.api.items(PODS, namespace, without=unread, labelSelector=selector, fieldSelector=ALIVE)

        return self._once((PODS, namespace, selector), fetch)

    def pods_with(self, namespace: str, label: str, value: str, *, alone: bool) -> list[KubeObject]:
        """The pods whose label has this value; unless ``alone``, all pods with this label are listed once."""
        if alone:
            return self.pods(namespace, f"{label}={value}")

        def fetch() -> dict[str, list[KubeObject]]:
            found: dict[str, list[KubeObject]] = defaultdict(list)
            for pod in self.pods(namespace, label):
                found[pod["metadata"]["labels"][label]].append(pod)
            return found

        return self._once((PODS, namespace, label, "by value"), fetch).get(value, [])

    def is_alone(self, plural: str, namespace: str) -> bool:
        """Whether a single object of this kind is expected in a namespace."""
        return len(self._names[plural, namespace]) == 1
