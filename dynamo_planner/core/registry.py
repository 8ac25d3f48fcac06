"""What a configuration can name: the kinds that are shipped, and those of other packages where the caller allows them.

>>> constants = Registry("constant", float, "example.constants", {"pi": "math:pi", "tau": "math:tau"})
>>> round(constants.find("pi"), 3)
3.142
>>> constants.find("math:e")
Traceback (most recent call last):
...
dynamo_planner.core.registry.KindError: 'math:e' is a kind of your own, which is not allowed here: \
allow_custom_kinds: true in a configuration, --allow-custom-kinds on the command line or allow_custom=True in Python \
lets it run code of other packages
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from functools import reduce
from importlib import import_module
from itertools import accumulate
from typing import Any, Protocol, TypeVar

from dynamo_planner.core.nearest import did_you_mean

T = TypeVar("T")

CUSTOM_KINDS = "custom_kinds"
"""The key of a validation context under which :class:`CustomKinds` stand, where the caller allows them."""

READ_FILES = "read_files"
"""The key of a validation context that lets a path stand for what is in its file, where it is true."""

CUSTOM_KIND = r"^[\w.]+:[\w.]+$"
"""What ``package.module:Name`` looks like, for a JSON Schema."""

MEND = (
    "allow_custom_kinds: true in a configuration, --allow-custom-kinds on the command line or allow_custom=True in "
    "Python lets it run code of other packages"
)


class KindError(ValueError):
    """A kind that does not exist, is not allowed, or is of something else; the message says which."""


class CustomKinds(Protocol):
    """Finds kinds that are not shipped, by importing the package that has them."""

    def load(self, group: str, kind: str) -> object | None:
        """What ``package.module:Name``, or an entry point of this group, stands for; ``None`` where there is none."""

    def names(self, group: str) -> Collection[str]:
        """The entry points of a group."""


def import_object(where: str) -> Any:
    """Import ``package.module:Name``."""
    module, _, name = where.partition(":")
    return reduce(getattr, name.split("."), import_module(module))


class Registry(Mapping[str, T]):
    """Instances of ``base`` by name.

    Args:
        what: what it holds, for messages, such as ``"engine"``.
        base: what everything in it is an instance of.
        group: the group of entry points with which other packages extend it.
        shipped: where each one that is shipped lives, as ``package.module:Name``; imported when it is first needed.

    As a mapping it has what is shipped. :meth:`find` also takes kinds of other packages, where the validation context
    allows them.
    """

    def __init__(self, what: str, base: type[Any], group: str, shipped: Mapping[str, str] | None = None) -> None:
        self.what, self.base, self.group = what, base, group
        self._shipped = dict(shipped or {})

    def __getitem__(self, kind: str) -> T:
        return self._checked(kind, import_object(self._shipped[kind]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._shipped)

    def __len__(self) -> int:
        return len(self._shipped)

    def ship(self, shipped: Mapping[str, str]) -> None:
        """Add what a room above this one has to offer."""
        self._shipped.update(shipped)

    def find(self, kind: object, context: object = None) -> T:
        """What a kind stands for, under a validation context. Raises :class:`KindError`."""
        custom: CustomKinds | None = context.get(CUSTOM_KINDS) if isinstance(context, Mapping) else None
        if isinstance(kind, str):
            if kind in self._shipped:
                return self[kind]
            if custom is not None and (found := self._custom(kind, custom)) is not None:
                return self._checked(kind, found)
            if custom is None and ":" in kind:
                raise KindError(f"{kind!r} is a kind of your own, which is not allowed here: {MEND}")
        names = (*self._shipped, *(custom.names(self.group) if custom is not None else ()))
        more = (
            f" (those of installed packages are not allowed here: {MEND})"
            if custom is None
            else f", or your own as package.module:Name or by an entry point in the group {self.group}"
        )
        raise KindError(
            f"{kind!r} is no kind of {self.what}{did_you_mean(kind, names)} allowed: {', '.join(names)}{more}"
        )

    def _custom(self, kind: str, custom: CustomKinds) -> object | None:
        try:
            return custom.load(self.group, kind)
        except Exception as error:  # whatever the code of another package raises
            cause = str(error) if isinstance(error, ImportError | AttributeError) else f"{error!r}"
            absent = isinstance(error, ModuleNotFoundError) and error.name == kind.partition(":")[0].partition(".")[0]
            mend = " (install that package, or put its directory on PYTHONPATH)" if absent else ""
            raise KindError(f"{kind!r} cannot be imported: {cause}{mend}") from error

    def _checked(self, kind: str, found: Any) -> T:
        if not self._fits(found):
            raise KindError(f"{kind!r} is not {self._must_be()}")
        return found  # type: ignore[no-any-return]

    def _fits(self, found: object) -> bool:
        return isinstance(found, self.base)

    def _must_be(self) -> str:
        return f"a {public_name(self.base)}"


def public_name(base: type[Any]) -> str:
    """Where a class is imported from: the outermost package that exports it, rather than its module.

    >>> public_name(Registry)
    'dynamo_planner.core.registry.Registry'
    """
    packages = accumulate(base.__module__.split("."), "{}.{}".format)
    exports = (where for where in packages if getattr(sys.modules.get(where), base.__name__, None) is base)
    return f"{next(exports, base.__module__)}.{base.__qualname__}"
