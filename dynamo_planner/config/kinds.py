"""The registries that a configuration draws on, and kinds of other packages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from dynamo_planner.core.component import Kinds
from dynamo_planner.core.registry import CUSTOM_KINDS, READ_FILES, import_object
from dynamo_planner.executors.config import EXECUTORS
from dynamo_planner.forecasting.experts.registry import EXPERTS
from dynamo_planner.forecasting.rate_forecaster import FORECASTERS
from dynamo_planner.guards.registry import GUARDS
from dynamo_planner.policies.registry import POLICIES
from dynamo_planner.sources.config import SOURCES


@cache
def policy_kinds() -> tuple[Kinds[Any], ...]:
    """What the data of a policy can name by a ``kind``."""
    from dynamo_planner.policies.sla.registry import PARTS  # noqa: PLC0415  # imports scipy

    return (POLICIES, GUARDS, FORECASTERS, EXPERTS, *PARTS)


def kinds() -> tuple[Kinds[Any], ...]:
    """What data can name by a ``kind``."""
    return (*policy_kinds(), EXECUTORS, SOURCES)


class InstalledKinds:
    """Kinds of other packages: ``package.module:Name``, or the name of an entry point of an installed package."""

    def load(self, group: str, kind: str) -> Any:
        """Import what a kind stands for; ``None`` where no package offers it."""
        if ":" in kind:
            return import_object(kind)
        from importlib.metadata import entry_points  # noqa: PLC0415  # slow to import

        return next((point.load() for point in entry_points(group=group, name=kind)), None)

    def names(self, group: str) -> Collection[str]:
        """The kinds that installed packages offer."""
        from importlib.metadata import entry_points  # noqa: PLC0415

        return sorted(entry_points(group=group).names)


def loading_context(*, allow_custom: bool) -> Mapping[str, Any]:
    """The validation context of a file: paths of profiles are read, and custom kinds are imported where allowed."""
    return {READ_FILES: True, **({CUSTOM_KINDS: InstalledKinds()} if allow_custom else {})}
