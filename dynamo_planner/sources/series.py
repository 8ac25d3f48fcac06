"""Samples as every source hands them on: the series of a metric by their labels, and a page of metrics by name."""

from __future__ import annotations

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, sorted; ``()`` for a series without labels."""

Series = dict[Labels, float]
"""The samples of one name. NaN where the value is not a number."""

Page = dict[str, Series]
"""The series by sample name. A name that the page declares (``# TYPE``) without a sample has no series; a name that
is not on the page at all is not there."""
