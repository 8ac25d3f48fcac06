"""Where the engine's container is in a manifest: a JSON pointer, and what is there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynamo_planner.executors.kubernetes.container_args import NotUnderstoodError
from dynamo_planner.executors.kubernetes.graph import Component

Container = tuple[str, Mapping[str, Any]]

MAIN = "main"
"""What Dynamo's operator calls the engine's container."""


def of_component(component: Component, name: str | None) -> Container:
    """The container of a component: ``podTemplate`` in ``spec.components``, ``extraPodSpec`` in ``spec.services``.

    Raises :class:`NotUnderstoodError`.
    """
    if component.index is not None:
        template = component.spec.get("podTemplate")
        return of_template(f"/spec/components/{component.index}/podTemplate", template, name)
    main = (component.spec.get("extraPodSpec") or {}).get("mainContainer")
    if not isinstance(main, Mapping):
        raise NotUnderstoodError(
            f"component {component.name} has no extraPodSpec.mainContainer: give its command there"
        )
    return f"/spec/services/{_escaped(component.name)}/extraPodSpec/mainContainer", main


def of_template(pointer: str, template: Any, name: str | None) -> Container:
    """The container of a pod template: that of this name, else ``main``, else the only one.

    Raises :class:`NotUnderstoodError`.
    """
    there = list(((template or {}).get("spec") or {}).get("containers") or ())
    names = [each.get("name") for each in there]
    wanted = name or (MAIN if MAIN in names else None)
    found = [k for k, each in enumerate(names) if wanted is None or each == wanted]
    if len(found) != 1:
        listed = ", ".join(map(str, names)) or "none"
        raise NotUnderstoodError(f"it is not clear which container is the engine's, give container: there are {listed}")
    return f"{pointer}/spec/containers/{found[0]}", there[found[0]]


def _escaped(key: str) -> str:
    """A key as a part of a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")
