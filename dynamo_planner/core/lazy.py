"""Public names that a package imports only when they are used, and old names that it still knows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from dynamo_planner.core.deprecation import warn_deprecated
from dynamo_planner.core.nearest import did_you_mean

NONE: Mapping[str, str] = MappingProxyType({})

HELPERS = frozenset({"TYPE_CHECKING", "annotations", "lazy_exports"})
"""What packages import for their own use, and completion need not offer."""


def lazy_exports(
    package: str, modules: Mapping[str, str], renamed: Mapping[str, str] = NONE, removed_in: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """A package's ``__getattr__``, which imports a name when it is first used, and its ``__dir__``, which lists them.

    A package so exports what needs an extra, or scipy, without making every import wait for it.

    Args:
        package: the package's ``__name__``.
        modules: for each public name, the module below ``package`` that defines it.
        renamed: for each old name, the name in ``package`` that took its place; using it warns. None by default.
        removed_in: the release that removes the old names.

    >>> __getattr__, __dir__ = lazy_exports("dynamo_planner", {"Bounds": "guards.bounds"})
    >>> __getattr__("Bounds").kind
    'bounds'
    >>> __getattr__("Bound")
    Traceback (most recent call last):
    ...
    AttributeError: module 'dynamo_planner' has no attribute 'Bound', did you mean 'Bounds'?
    """

    def import_on_use(name: str) -> Any:
        if name in renamed:
            new = renamed[name]
            warn_deprecated(f"{package}.{name}", f"{package}.{new}", removed_in=removed_in)
            return getattr(import_module(package), new)
        if name not in modules:
            near = "" if name.startswith("_") else did_you_mean(name, names()).removesuffix(";")
            raise AttributeError(f"module {package!r} has no attribute {name!r}{near}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *modules} - HELPERS)

    return import_on_use, names
