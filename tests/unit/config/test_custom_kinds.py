"""Kinds of other packages, by ``package.module:Name`` and by entry points, where the caller allows them."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from dynamo_planner import ConfigError, load_policy
from dynamo_planner.config.assemble import running_service
from dynamo_planner.config.kinds import kinds, loading_context
from dynamo_planner.config.problems import validated
from dynamo_planner.config.run import RunConfig, config_schema, load_config
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.sources.scraping.config import FrontendConfig, ScrapeConfig

OF = "acme_scaling.kinds"
FRONT = {"urls": ["http://127.0.0.1:1"]}

CODE = """
from dynamo_planner import Guard, Observation, Policy, PoolSpec, Proposal, Replicas, Traffic, Want
from dynamo_planner.engines import EngineSpec, Knob, Vocabulary
from dynamo_planner.executors import ExecutorConfig
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.sources import SourceConfig

class Fixed(Policy):
    replicas: int

    def propose(self, snapshot, state):
        return Proposal(pools={pool: Want(self.replicas) for pool in snapshot.pools}), state

class Never(Guard, kind="never"):
    def limit(self, snapshot, proposal, state):
        return Proposal.hold(snapshot.pools, "never", "Never"), state

class Fleet(DryRunExecutor):
    log = []

    def __enter__(self):
        self.log.append("started")
        return self

    def __exit__(self, *exception):
        self.log.append("ended")

    def endpoints(self):
        return {pool: {"w0": "http://127.0.0.1:9"} for pool in self.pools}

class FleetConfig(ExecutorConfig):
    pools: dict[str, PoolSpec]
    size: int = 1
    @property
    def specs(self):
        return self.pools

    def build(self):
        if self.size > 8:
            raise ValueError(f"size: {self.size} is more than the fleet has, which is 8")
        return Fleet(self.pools, {pool: self.size for pool in self.pools})

class RateConfig(SourceConfig):
    rate: float

    def build(self, roles, endpoints):
        assert roles == {"workers": "aggregated"}
        assert callable(endpoints) and list(endpoints()) == ["workers"]
        return Rate(self.rate)

class Rate:
    def __init__(self, rate):
        self.rate = rate
    def observe(self, at_s):
        return Observation(traffic=Traffic(requests_per_s=self.rate))

FRONT = Vocabulary(engine="AcmeFront", quantities={"arrivals": {"kind": "counter", "names": "front_total"}})

ENGINE = EngineSpec(
    workers=Vocabulary(engine="Acme", quantities={"running": {"kind": "gauge", "names": "acme_running"}}),
    frontends={"acme_front": FRONT},
    knobs=(
        Knob(
            name="max_num_seqs", own_name="slots", argument="--slots", roles=("aggregated",), minimum=1, maximum=8,
            trades="ITL for a place in the batch",
        ),
    ),
)
"""

ENTRY_POINTS = """
[dynamo_planner.policies]
fixed = acme_scaling.kinds:Fixed
broken = acme_scaling.nothing:Here
not_one = acme_scaling.kinds:Never
unfinished = dynamo_planner:Policy

[dynamo_planner.guards]
never = acme_scaling.kinds:Never

[dynamo_planner.executors]
fleet = acme_scaling.kinds:FleetConfig

[dynamo_planner.sources]
rate = acme_scaling.kinds:RateConfig

[dynamo_planner.engines]
acme = acme_scaling.kinds:ENGINE
"""

RUN = """
allow_custom_kinds: true
policy: [{{kind: {of}:Fixed, replicas: 3}}, {{kind: bounds}}]
executor: {{kind: {executor}, size: 2, pools: {{workers: {{role: aggregated}}}}}}
source: {{kind: {source}, rate: 4}}
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installed package with kinds of its own, as pip would leave it."""
    code = tmp_path / "acme_scaling"
    code.mkdir()
    (code / "__init__.py").touch()
    (code / "kinds.py").write_text(textwrap.dedent(CODE))
    about = tmp_path / "acme_scaling-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-scaling\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    yield code
    for name in [name for name in sys.modules if name.partition(".")[0] == "acme_scaling"]:
        del sys.modules[name]


@pytest.mark.parametrize("kind", ["acme_scaling.kinds:Fixed", "fixed"])
@pytest.mark.parametrize("guard", ["acme_scaling.kinds:Never", "never"])
def test_a_policy_and_a_guard(kind: str, guard: str) -> None:
    policy = load_policy([{"kind": kind, "replicas": 3}, {"kind": guard}], allow_custom=True)
    assert policy.model_dump()["policy"] == {"kind": "acme_scaling.kinds:Fixed", "replicas": 3}
    assert load_policy(policy.model_dump(mode="json"), allow_custom=True) == policy


@pytest.mark.parametrize("kind", ["acme_scaling.kinds:Fixed", "fixed"])
def test_nothing_is_imported_without_permission(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.kind: .*allow_custom_kinds: true in a configuration") as caught:
        load_policy({"kind": kind, "replicas": 3})
    assert "--allow-custom-kinds" in str(caught.value)
    assert "acme_scaling" not in sys.modules


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"kind": "broken"}, "policy.kind: 'broken' cannot be imported: No module named 'acme_scaling.nothing'"),
        ({"kind": "not_one"}, "policy.kind: 'not_one' is not a subclass of dynamo_planner.Policy"),
        ({"kind": "never"}, "policy.kind: 'never' is no kind of policy; allowed: load, "),
        ({"kind": "fixd"}, "together, broken, fixed, not_one, unfinished, or your own as package.module:Name or by an"),
        ({"kind": "unfinished"}, "policy.kind: 'unfinished' does not implement propose, which every policy does"),
        ({"kind": "fixed"}, "policy.replicas: Field required"),
        (
            {"kind": "fixed", "replica": 3},
            "policy.replica: unknown field, did you mean 'replicas'? allowed: name, replicas",
        ),
        ({"kind": "acme_scaling.kinds:Fixed", "replicas": "x"}, "policy.replicas: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_is_told_as_of_any_other(data: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_policy(data, allow_custom=True)
    assert message in str(caught.value)


def test_code_that_fails_to_import_is_told(package: Path) -> None:
    (package / "bad.py").write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"policy\.kind: 'acme_scaling\.bad:X' cannot be imported: ZeroDivisionError"):
        load_policy({"kind": "acme_scaling.bad:X"}, allow_custom=True)


def run_file(tmp_path: Path, executor: str = "fleet", source: str = "rate") -> Path:
    path = tmp_path / "planner.yaml"
    path.write_text(RUN.format(of=OF, executor=executor, source=source))
    return path


@pytest.mark.parametrize(("executor", "source"), [("fleet", "rate"), (f"{OF}:FleetConfig", f"{OF}:RateConfig")])
def test_an_executor_and_a_source(executor: str, source: str, tmp_path: Path) -> None:
    config = load_config(run_file(tmp_path, executor, source))
    log = importlib.import_module(OF).Fleet.log
    with running_service(config) as service:
        assert log == ["started"]
        step = service.planner.step()
    assert log == ["started", "ended"]
    assert step.snapshot.traffic.requests_per_s == 4
    assert [outcome.message for outcome in step.outcomes] == ["dry run: would scale workers from 2 to 3 replicas"]
    described = config.model_dump(mode="json")
    assert described["executor"]["kind"] == f"{OF}:FleetConfig"
    assert validated(RunConfig, described, "", loading_context(allow_custom=True)) == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "allow_custom_kinds: true",
            "",
            "executor.kind: 'fleet' is no kind of executor; allowed: circus, kubernetes, ",
        ),
        (
            "kind: fleet",
            "kind: flet",
            "executor.kind: 'flet' is no kind of executor, did you mean 'fleet'? allowed: circus, kubernetes, dry_run",
        ),
        ("kind: rate", "kind: fleet", "source.kind: 'fleet' is no kind of source; allowed: scrape, prometheus, rate"),
        ("size: 2", "sise: 2", "executor.sise: unknown field, did you mean 'size'? allowed: pools, size"),
        ("role: aggregated", "role: other", "executor.pools.workers.role: Input should be"),
        ("rate: 4", "rates: 4", "source.rate: Field required"),
    ],
)
def test_what_is_wrong_with_a_run_is_told_by_its_path(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = run_file(tmp_path)
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert f"{path}: {message}" in str(caught.value)


def test_what_does_not_build_is_told_as_of_the_executor(tmp_path: Path) -> None:
    path = run_file(tmp_path)
    path.write_text(path.read_text().replace("size: 2", "size: 9"))
    with (
        pytest.raises(ConfigError, match=r"^executor: size: 9 is more than the fleet has"),
        running_service(load_config(path)),
    ):
        pass


@pytest.mark.parametrize("engine", ["acme", f"{OF}:ENGINE"])
def test_an_engine(engine: str) -> None:
    allowed = loading_context(allow_custom=True)
    scrape = validated(ScrapeConfig, {"engine": engine, "frontend": FRONT | {"engine": f"{OF}:ENGINE"}}, "", allowed)
    assert scrape.engine is not None and scrape.engine.engine == "Acme"
    assert scrape.frontend is not None and scrape.frontend.engine is not None
    assert scrape.frontend.engine.engine == "AcmeFront"
    data = {"spec": {"role": "aggregated"}, "engine": engine, "command": ["a", "{port}", "{max_num_seqs}"]}
    pool = validated(CircusPool, data | {"knobs": {"max_num_seqs": 4}}, "", allowed)
    assert pool.catalogue["max_num_seqs"].own_name == "slots"
    assert CircusPool.model_validate(pool.model_dump()) == pool
    with pytest.raises(ConfigError, match="max_num_seqs is 9; it must be from 1 to 8"):
        validated(CircusPool, data | {"knobs": {"max_num_seqs": 9}}, "", allowed)
    tuner = load_policy({"kind": "knobs", "sla": {"ttft_ms": 500, "itl_ms": 25}, "engine": engine}, allow_custom=True)
    assert load_policy(tuner.model_dump(mode="json")) == tuner


def test_an_engine_is_refused_without_permission() -> None:
    for expected, data in (
        (ScrapeConfig, {"engine": f"{OF}:ENGINE"}),
        (FrontendConfig, FRONT | {"engine": f"{OF}:ENGINE"}),
        (CircusPool, {"spec": {"role": "aggregated"}, "command": ["a"], "engine": f"{OF}:ENGINE"}),
    ):
        with pytest.raises(ConfigError, match="which is not allowed here: allow_custom_kinds: true"):
            validated(expected, data, "")
    with pytest.raises(ConfigError, match="engine: 'tgi' is no engine with workers; those are vllm, sglang"):
        load_policy({"kind": "knobs", "sla": {"ttft_ms": 500, "itl_ms": 25}, "engine": "tgi"})
    with pytest.raises(ConfigError, match="engine: 'dynamo' has no workers of its own; those that have are vllm, "):
        validated(ScrapeConfig, {"engine": "dynamo"}, "")
    assert "acme_scaling" not in sys.modules


def test_the_schema_of_a_configuration_knows_every_kind(tmp_path: Path) -> None:
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    accepts = jsonschema.Draft202012Validator(schema).is_valid
    data = yaml.safe_load(run_file(tmp_path, f"{OF}:FleetConfig", f"{OF}:RateConfig").read_text())
    assert accepts(data)
    assert accepts({**data, "source": {"engine": "vllm", "frontend": FRONT | {"engine": f"{OF}:ENGINE"}}})
    mine = {"engine": "Mine", "quantities": {}}
    assert accepts({**data, "source": {"kind": "prometheus", "url": "http://prometheus", "engine": mine}})
    for field, wrong in (
        ("policy", {"kind": "lod"}),
        ("executor", {"kind": "dry"}),
        ("source", {"kind": "prometheus"}),
        ("source", {"engine": "tgi"}),
        ("source", {"engine": "dynamo_frontend"}),
    ):
        assert not accepts({**data, field: wrong}), wrong


def test_every_shipped_kind_is_there_under_its_own_name() -> None:
    for registry in kinds():
        assert {kind: each.kind for kind, each in registry.items()} == {kind: kind for kind in registry}
