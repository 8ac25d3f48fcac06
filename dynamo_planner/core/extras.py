"""Missing extras: an import error that names what to install."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtraError(ImportError):
    """A package of an extra is not installed."""


@contextmanager
def needs_extra(extra: str) -> Iterator[None]:
    """Wrap the imports of an optional package.

    >>> with needs_extra("circus"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    dynamo_planner.core.extras.MissingExtraError: no_such_package is not installed: pip install 'dynamo-planner[circus]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{error.name} is not installed: pip install 'dynamo-planner[{extra}]'") from error
