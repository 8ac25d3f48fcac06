"""What must hold whatever a Prometheus server answers; see ``hostile``. The answers do not go over HTTP here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest import mock

from dynamo_planner import PoolSpec
from dynamo_planner.engines.registry import worker_vocabularies
from dynamo_planner.sources import HistorySource, PrometheusSource, SourceError
from tests.support.sources.hostile import check

AT = 1_700_000_000.0
VOCABULARIES = (None, *worker_vocabularies().values())


def observe(answers: Sequence[str], engine: int, *, past: bool = False) -> None:
    """Ask for a pool, now or in the past, of a server that has these answers in turn for whatever it is asked."""
    asked = [0]

    def fetched(urls: Mapping[Any, str], read: Callable[[Any, str], Any], **_: Any) -> dict[Any, Any]:
        found = {}
        for key in urls:
            found[key] = read(key, answers[asked[0] % len(answers)])
            asked[0] += 1
        return found

    with mock.patch("dynamo_planner.sources.prometheus.api.fetch_all", fetched):
        source = PrometheusSource(
            "http://127.0.0.1:1",
            {"w": "aggregated"},
            vocabulary=VOCABULARIES[engine % len(VOCABULARIES)],
            frontend={"app": "frontend"},
            pools={"w": {"app": "worker"}},
        )
        try:
            if past:
                for snapshot in HistorySource.of(
                    source, {"w": PoolSpec(role="aggregated")}, start_s=AT - 1, end_s=AT, step_s=1
                ):
                    assert snapshot.at_s <= AT
            else:
                check(source.observe(AT))
        except SourceError as error:
            assert "answered none of" in str(error)
