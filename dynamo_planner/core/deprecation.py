"""Warnings for what a coming release removes."""

from __future__ import annotations

import warnings


def warn_deprecated(old: str, use: str, *, removed_in: str, stacklevel: int = 2) -> None:
    """Warn that something public goes, what to use in its place, and with which release it goes.

    Args:
        old: what is deprecated, as users write it.
        use: what to write instead.
        removed_in: the first release without it, one minor release after the warning at the earliest.
        stacklevel: the frame that the warning points at: 2, the default, is the caller of the deprecated function.

    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     warn_deprecated("knobs.ENGINES", "engines.KNOBS", removed_in="0.3.0")
    >>> str(caught[0].message)
    'knobs.ENGINES is deprecated and is removed in 0.3.0: use engines.KNOBS'
    """
    message = f"{old} is deprecated and is removed in {removed_in}: use {use}"
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel + 1)
