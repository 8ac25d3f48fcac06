"""One file an engine and one line in the registry: what a new engine has to be."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import pytest

from dynamo_planner import engines
from dynamo_planner.engines import ENGINES, EngineSpec
from dynamo_planner.engines.vocabulary import EXPLAINING, QUANTITIES

MODULES = {
    each.name: import_module(f"{engines.__name__}.{each.name}") for each in pkgutil.iter_modules(engines.__path__)
}


def test_every_file_with_an_engine_has_its_line_under_its_own_name() -> None:
    found = {name: module.ENGINE for name, module in MODULES.items() if hasattr(module, "ENGINE")}
    assert found == dict(ENGINES)


@pytest.mark.parametrize("name", ENGINES)
def test_an_engine_reports_metrics_and_survives_json(name: str) -> None:
    engine = ENGINES[name]
    vocabularies = [*engine.frontends.values(), *([engine.workers] if engine.workers else [])]
    assert vocabularies
    for vocabulary in vocabularies:
        assert {*vocabulary.quantities, *vocabulary.cannot_tell, *EXPLAINING} == set(QUANTITIES)
    assert EngineSpec.model_validate_json(engine.model_dump_json()) == engine
