"""``check --prometheus`` says of each kind of trouble what is wrong, in a sentence, and how to mend it."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import pytest
from typer.testing import CliRunner

from dynamo_planner.cli.app import app
from dynamo_planner.sources.series import Page
from tests.support.sources.query_server import QueryServer
from tests.support.sources.small_prometheus import Store
from tests.support.sources.true_service import Process, vllm_page

LONG_AGO_S = 90_000


def page(number: int, now_s: float, *, before: int = 0, older_s: float = 0.0) -> Page:
    """That of an idle worker, which ends one request in ten seconds."""
    return vllm_page(Process(now_s - LONG_AGO_S - older_s, [], before=before + number), now_s)


def in_turn(number: int, now_s: float) -> Page:
    return page(number, now_s, before=80_000 * (number % 2), older_s=100.0 * (number % 2))


def renamed(number: int, now_s: float) -> Page:
    return {name.replace("request_success", "requests_ended"): of for name, of in page(number, now_s).items()}


def relabelled(number: int, now_s: float) -> Page:
    return {name.replace("vllm:", "acme_"): of for name, of in page(number, now_s).items()}


def silent(number: int, now_s: float) -> Page:
    return page(number, now_s) if number < 50 else {}


def checked(
    pages: Callable[[int, float], Page] = page,
    arguments: tuple[str, ...] = (),
    jobs: tuple[str, ...] = ("llm",),
    up: float = 1,
    ahead_s: float = 0,
    **server: Any,
) -> str:
    """What it prints of a server that scraped two workers for ten minutes."""
    now_s, store = time.time(), Store()
    for pod in ("a", "b"):
        for job in jobs:
            target = {"pod": pod, "instance": f"{pod}:8000", "job": job, "pool": "chat"}
            for number in range(61):
                at_s = now_s - 600 + 10 * number
                store.add("up", target, at_s, up)
                for name, series in pages(number, now_s).items():
                    for labels, value in series.items():
                        store.add(name, {**dict(labels), **target}, at_s, value)
    date = formatdate(now_s - ahead_s, usegmt=True)
    with QueryServer(
        lambda query: [(dict(labels), value) for labels, value in store.query(query, now_s).items()],
        now_s,
        date=date,
        **server,
    ) as prometheus:
        asked = ["check", "--prometheus", prometheus.url, "--worker-label", "pod", *arguments]
        return CliRunner().invoke(app, asked).output


@pytest.mark.parametrize(
    ("trouble", "what", "how"),
    [
        ({"always": {"isPartial": True}}, "the server says isPartial", "see which of its stores do not answer"),
        ({"always": {"warnings": ["no store"]}}, "may be partial: no store", "see which of its stores do not answer"),
        ({"always": {"infos": ["partial data"]}}, "may be partial: partial data", "see which of its stores do not"),
        ({"jobs": ("llm", "pods")}, "a: Prometheus has its series 2 times (job 'llm' and 'pods')", "counted once"),
        ({"pages": renamed}, "Prometheus has no vllm:request_success_total", "named in a vocabulary of your own"),
        ({"pages": relabelled}, "Prometheus has no metric of vLLM", "start it without --disable-log-stats"),
        ({"arguments": ("--model", "llama")}, "no series has the model 'llama'", "those of model_name are 'tiny'"),
        ({"arguments": ("--label", "pool=chatt")}, 'no metric with {pool="chatt"}', "pool is 'chat'"),
        ({"ahead_s": 90}, "s after the server's present", "synchronize the planner's clock"),
        ({"ahead_s": -90}, "s behind the server's", "synchronize both"),
        (
            {"pages": in_turn},
            "a: another process answers at this address",
            "list each process by an address of its own",
        ),
        ({"pages": silent, "up": 0}, "Prometheus could not scrape it (up is 0)", "its page of targets says why"),
        ({"trouble": lambda _: 401}, "it answered 401, not 200", "access.bearer_token_file"),
        ({"trouble": lambda _: 404}, "it answered 404, not 200", "is the URL the one before /api/v1?"),
        ({"posts": False, "most_get_chars": 800}, "it answered 414, not 200", "let POST to it pass"),
    ],
)
def test_each_kind_of_trouble(trouble: dict[str, Any], what: str, how: str) -> None:
    output = checked(**trouble)
    assert any(what in line for line in output.splitlines()), output
    assert how in output[output.index(what) :], output


def test_without_trouble_there_is_nothing_to_mend() -> None:
    output = checked()
    assert "requests_per_s 0.2, isl 900" in output
    for word in ("partial", "times (", "vocabulary of your own", "another process", "clock", "could not"):
        assert word not in output
