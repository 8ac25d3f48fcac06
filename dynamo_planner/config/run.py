"""The configuration of ``dynamo-planner run``: one file for the policy, the pools, where to look and where to act."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from dynamo_planner.config.files import read_data
from dynamo_planner.config.kinds import KINDS, loading
from dynamo_planner.config.problems import ConfigError, validated
from dynamo_planner.config.schema import definitions
from dynamo_planner.core.policy import AnyPolicy
from dynamo_planner.core.snapshot import PoolSpec
from dynamo_planner.core.values import Frozen, FrozenMap
from dynamo_planner.engines.vocabulary import Vocabulary
from dynamo_planner.executors.circus import CircusPool
from dynamo_planner.executors.kubernetes import KubernetesPool
from dynamo_planner.sources.prometheus.access import Access
from dynamo_planner.sources.prometheus.promql import LabelMatchers, LabelName


def _form(value: object) -> str:
    return "name" if isinstance(value, str) else "Vocabulary"


Engine = (
    Annotated[
        Annotated[Literal["vllm", "sglang", "trtllm", "llamacpp"], Tag("name")]
        | Annotated[Vocabulary, Tag("Vocabulary")],
        Discriminator(_form),
    ]
    | None
)
"""The name of an engine, or a vocabulary of a user's own; ``None`` means that it is found out."""

FrontendEngine = (
    Annotated[
        Annotated[Literal["dynamo_frontend", "dynamo_router"], Tag("name")] | Annotated[Vocabulary, Tag("Vocabulary")],
        Discriminator(_form),
    ]
    | None
)
"""The same for what stands before the workers."""


class FrontendConfig(Frozen):
    """Scrape what clients ask, for what they saw; ``urls`` are all of them, ``engine`` is as for workers."""

    urls: list[str] = Field(min_length=1)
    engine: FrontendEngine = None


class ScrapeConfig(Frozen):
    """Scrape each worker's metrics (extra ``scrape``).

    ``engine`` is the name of one, or a vocabulary of your own; left out, it is told from each worker's page. Where
    workers or frontends serve several models, ``model`` says which of them this is about.
    """

    kind: Literal["scrape"] = "scrape"
    engine: Engine = None
    model: str | None = None
    timeout_s: float = Field(default=2.0, gt=0)
    window_s: float = Field(default=30.0, gt=0)
    workers: dict[str, dict[str, str]] | None = None
    """Base URLs by pool and worker name; left out, the executor says where its workers are."""
    frontend: FrontendConfig | None = None


class PrometheusConfig(Frozen):
    """Ask a Prometheus server (extra ``prometheus``).

    ``labels`` are what all scrape targets of the model have, ``pools`` what those of each pool have besides,
    ``frontend`` what those before the pools have; ``model`` is its name where targets serve several. A label's value
    may begin with an operator of PromQL: ``{pod: "=~llama-decode-.*"}``. ``worker_label`` tells workers apart.
    ``engine`` is the name of one, or a vocabulary of your own; left out, it is found out. ``window_s`` is to be four
    scrape intervals or more.
    """

    kind: Literal["prometheus"] = "prometheus"
    url: str
    engine: Engine = None
    model: str | None = None
    labels: LabelMatchers = Field(default_factory=FrozenMap)
    pools: dict[str, LabelMatchers] = Field(default_factory=dict)
    frontend: LabelMatchers | None = None
    worker_label: LabelName = "instance"
    window_s: float = Field(default=60.0, gt=0)
    timeout_s: float = Field(default=10.0, gt=0)
    access: Access = Access()


def _scrape_by_default(value: Any) -> Any:
    return {"kind": "scrape", **value} if isinstance(value, dict) else value


SourceConfig = Annotated[
    ScrapeConfig | PrometheusConfig, Field(discriminator="kind"), BeforeValidator(_scrape_by_default)
]


class CircusConfig(Frozen):
    """Run workers as local processes under a Circus arbiter (extra ``circus``)."""

    kind: Literal["circus"] = "circus"
    namespace: str = Field(default="dynamo", pattern=r"^[a-z0-9][a-z0-9_-]*$")
    pools: dict[str, CircusPool] = Field(min_length=1)
    endpoint: str | None = None
    state_dir: Path | None = None
    gpus: list[int] | None = None


class LeaseConfig(Frozen):
    """The Lease that several planners of the same pools campaign for; one that dies is replaced within ``seconds``."""

    name: str = Field(default="dynamo-planner", pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    seconds: int = Field(default=15, ge=3)


class KubernetesConfig(Frozen):
    """Write replicas through the Kubernetes API (extra ``kubernetes``).

    Credentials are those of ``kubeconfig`` and its ``context``, else of the pod that the planner runs in, else of the
    default kubeconfig; ``namespace`` left out is the one that they name.
    """

    kind: Literal["kubernetes"] = "kubernetes"
    pools: dict[str, KubernetesPool] = Field(min_length=1)
    namespace: str | None = None
    kubeconfig: Path | None = None
    context: str | None = None
    when_changed: Literal["yield", "retake"] = "yield"
    yield_s: float = Field(default=600.0, ge=0)
    check_autoscalers: bool = True
    patience_s: float = Field(default=15.0, gt=0)
    dry_run: bool = False
    events: bool = False
    lease: LeaseConfig | None = None


class DryRunConfig(Frozen):
    """Act on nothing: every action is recorded as unchanged, and replicas stay as they are given here."""

    kind: Literal["dry_run"] = "dry_run"
    pools: dict[str, PoolSpec] = Field(min_length=1)
    replicas: dict[str, int] = Field(default_factory=dict)


class GaugeConfig(Frozen):
    """Publish wanted replicas as ``dynamo_planner_desired_replicas`` on the page that ``monitoring`` serves.

    ``observes`` says what there really is, and is not acted on. ``namespace`` and ``target`` are the metric's labels.
    A number that was not confirmed for ``valid_s`` is no longer told.
    """

    kind: Literal["gauge"] = "gauge"
    namespace: str = Field(min_length=1)
    target: str = Field(min_length=1)
    observes: CircusConfig | KubernetesConfig | DryRunConfig = Field(discriminator="kind")
    valid_s: float = Field(default=60.0, gt=0)


class RouterConfig(Frozen):
    """Set the knobs that Dynamo's disaggregated router watches in etcd (extra ``etcd``).

    The router is that of a Dynamo ``namespace`` (Python), or of a ``model`` (Rust). The password is in a file, and
    ``cert_file`` and ``key_file`` are the client's, where etcd asks for them.
    """

    url: str = Field(pattern=r"^https?://[^@]+$")
    namespace: str | None = Field(default=None, min_length=1)
    model: str | None = Field(default=None, min_length=1)
    user: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout_s: float = Field(default=3.0, gt=0)

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        if (self.namespace is None) == (self.model is None):
            raise ValueError("namespace (the Python router's) or model (the Rust router's): give one of the two")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together: give both or none")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together: give both or none")
        return self


class MonitoringConfig(Frozen):
    """Serve ``/metrics``, ``/healthz`` and ``/readyz`` (extra ``prometheus``). There is no authentication."""

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=9464, ge=0, le=65_535)


class RunConfig(Frozen):
    """Everything that ``dynamo-planner run`` needs.

    ``router`` is where Dynamo's disaggregated router takes its knobs from. ``log`` takes a line per decision,
    ``state_file`` what the policy remembers across restarts. ``advisory`` decides and records without acting.
    ``overrides`` is a file with pins, floors and pauses, which may change at any time. ``allow_custom_kinds`` lets the
    policy name kinds of your own (``package.module:Name``), which runs code of that package.
    """

    policy: AnyPolicy
    executor: CircusConfig | KubernetesConfig | DryRunConfig | GaugeConfig = Field(discriminator="kind")
    source: SourceConfig = ScrapeConfig()
    router: RouterConfig | None = None
    interval_s: float = Field(default=10.0, gt=0)
    advisory: bool = False
    log: Path | None = None
    state_file: Path | None = None
    overrides: Path | None = None
    monitoring: MonitoringConfig | None = None
    allow_custom_kinds: bool = False

    @model_validator(mode="after")
    def _a_gauge_is_seen(self) -> Self:
        if isinstance(self.executor, GaugeConfig):
            if self.monitoring is None:
                raise ValueError(
                    "executor.kind gauge is read from the page of 'monitoring', which is not there: add it"
                )
            if self.executor.valid_s <= self.interval_s:
                raise ValueError(
                    f"executor.valid_s ({self.executor.valid_s:g}) must be longer than interval_s "
                    f"({self.interval_s:g}), or the gauge comes and goes"
                )
        return self


def pool_specs(executor: CircusConfig | KubernetesConfig | DryRunConfig | GaugeConfig) -> dict[str, PoolSpec]:
    """What the replicas of each pool are, as the configuration of an executor has it."""
    pools = executor.observes.pools if isinstance(executor, GaugeConfig) else executor.pools
    return {name: pool if isinstance(pool, PoolSpec) else pool.spec for name, pool in pools.items()}


def load_config(path: Path) -> RunConfig:
    """Read a configuration. Raises :class:`ConfigError` with every field that is wrong."""
    data = read_data(path)
    if not isinstance(data, dict):
        raise ConfigError([f"{path}: expected a mapping, got {type(data).__name__}"])
    try:
        return validated(RunConfig, data, "", loading(allow_custom=data.get("allow_custom_kinds") is True))
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error


def config_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration."""
    schema = RunConfig.model_json_schema(ref_template="#/$defs/{model}")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "The configuration of dynamo-planner run"
    schema["$defs"].update(definitions(*KINDS))
    return schema
