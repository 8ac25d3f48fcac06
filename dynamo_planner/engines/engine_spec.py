"""All that is known of one engine, as data."""

from __future__ import annotations

from pydantic import Field

from dynamo_planner.core.values import Frozen, FrozenMap, ReadOnly
from dynamo_planner.engines.knob import Knob
from dynamo_planner.engines.vocabulary import Vocabulary


class EngineSpec(Frozen):
    """One engine: the metrics that it reports and the knobs that it has.

    How it must be started to report them is in its vocabulary (``start_with``, ``switches``).

    Args:
        workers: the vocabulary of its workers' metrics; ``None`` where it has no workers of its own (Dynamo).
        setups: other vocabularies of its workers, for how they may be started where their metrics do not tell, by the
            name that a configuration gives them.
        frontends: the vocabularies of what stands before workers, by the name that a configuration gives them.
        knobs: its knobs, none by default.
    """

    workers: Vocabulary | None = None
    setups: ReadOnly[str, Vocabulary] = Field(default_factory=FrozenMap)
    frontends: ReadOnly[str, Vocabulary] = Field(default_factory=FrozenMap)
    knobs: tuple[Knob, ...] = ()
