"""The series of one model on a page of several, and which models there are where none is it."""

from __future__ import annotations

from collections.abc import Iterable

from dynamo_planner.engines.vocabulary import NO_MODEL
from dynamo_planner.sources.series import Page

MAX_NAMES = 5
MAX_NAME_CHARS = 80
"""How many names of models a message has, and how long they are at most."""


def select_model(page: Page, label: str | None, model: str | None) -> tuple[Page, str]:
    """Drop the series of other models; one without the label, or whose label names none, is of all models, and stays.

    Where every series that has the label is of another model, their metrics are not on the page that is returned, and
    the text says which models there are: nothing is known of this one, not even that it has no requests.
    """
    if label is None or model is None:
        return page, ""
    wanted = (label, model.casefold())
    picked: Page = {}
    others: dict[str, None] = {}
    found = False
    for name, series in page.items():
        kept = {}
        for labels, value in series.items():
            said = next((said for each, said in labels if each == label), None)
            if said is None or said.casefold() in NO_MODEL:
                kept[labels] = value
            elif (label, said.casefold()) == wanted:
                kept[labels] = value
                found = True
            else:
                others[said] = None
        picked[name] = kept
    if found or not others:
        return picked, ""
    return {name: series for name, series in picked.items() if series}, no_such_model(label, model, others)


def no_such_model(label: str, model: str, others: Iterable[str]) -> str:
    """That no series is of a model, and of which there are some.

    >>> no_such_model("model_name", "qwen", ["Qwen/Qwen3-32B"])
    "no series has the model 'qwen'; those of model_name are 'Qwen/Qwen3-32B'"
    """
    names = sorted(others)
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    there = ", ".join(repr(name[:MAX_NAME_CHARS]) for name in names[:MAX_NAMES])
    return f"no series has the model {model!r}; those of {label} are {there}{more}"
