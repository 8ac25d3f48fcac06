"""What a configuration describes, running."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from dynamo_planner.config.overrides import load_overrides, with_overrides
from dynamo_planner.config.problems import ConfigError
from dynamo_planner.config.run import CircusConfig, DryRunConfig, GaugeConfig, KubernetesConfig, RouterConfig, RunConfig
from dynamo_planner.config.sources import source_of
from dynamo_planner.executors import ElectsLeader, Executor
from dynamo_planner.executors.dry_run import DryRunExecutor
from dynamo_planner.guards import Override
from dynamo_planner.runtime.decision_log import Step
from dynamo_planner.runtime.planner import Planner

if TYPE_CHECKING:
    from dynamo_planner.executors.circus import CircusExecutor
    from dynamo_planner.executors.kubernetes import KubernetesExecutor
    from dynamo_planner.runtime.monitor import Monitor

    Acting = DryRunExecutor | CircusExecutor | KubernetesExecutor


@dataclass(frozen=True)
class Service:
    """A planner, with the overrides that are in its policy and what watches it, where the configuration has them."""

    planner: Planner
    overrides: Override | None
    monitor: Monitor | None

    def run(self, between: Callable[[], None]) -> None:
        """Step until a signal comes, and call ``between`` after each step."""

        def after(step: Step) -> None:
            if self.monitor is not None:
                self.monitor.record(step)
            between()

        self.planner.run(after=after)


@contextmanager
def service_of(config: RunConfig) -> Iterator[Service]:
    """The planner of a configuration, with its executor and its page started; ends what it started."""
    with ExitStack() as ends:
        acting = _acting(config.executor.observes if isinstance(config.executor, GaugeConfig) else config.executor)
        monitor = _monitor_of(config, acting, ends)
        if not isinstance(acting, DryRunExecutor):
            ends.enter_context(acting)
        executor = _with_router(_executor_of(config, acting, monitor), config.router)
        overrides = load_overrides(config.overrides, executor.pools) if config.overrides is not None else None
        roles = {name: spec.role for name, spec in executor.pools.items()}
        planner = Planner(
            with_overrides(config.policy, overrides),
            source_of(config.source, roles, dict if isinstance(acting, DryRunExecutor) else acting.endpoints),
            executor,
            interval_s=config.interval_s,
            log=config.log,
            state_file=config.state_file,
            advisory=config.advisory,
        )
        yield Service(planner, overrides, monitor)


def _monitor_of(config: RunConfig, acting: Acting, ends: ExitStack) -> Monitor | None:
    if config.monitoring is None:
        return None
    from dynamo_planner.runtime.monitor import Monitor  # noqa: PLC0415  # needs the extra prometheus
    from dynamo_planner.runtime.status_page import page  # noqa: PLC0415

    elects = acting if isinstance(acting, ElectsLeader) and acting.leading is not None else None
    leading = None if elects is None else (lambda: bool(elects.leading))
    monitor = Monitor(config.interval_s, leading)
    ends.enter_context(page(config.monitoring.host, config.monitoring.port, monitor.metrics.registry, monitor.health))
    return monitor


def _executor_of(config: RunConfig, acting: Acting, monitor: Monitor | None) -> Executor:
    wanted = config.executor
    if not isinstance(wanted, GaugeConfig):
        return acting
    from dynamo_planner.executors.gauge import GaugeExecutor  # noqa: PLC0415  # needs the extra prometheus

    registry = cast("Monitor", monitor).metrics.registry  # there is a page: the configuration was checked for it
    return GaugeExecutor(wanted.namespace, wanted.target, acting, registry, valid_s=wanted.valid_s)


def _with_router(executor: Executor, config: RouterConfig | None) -> Executor:
    if config is None:
        return executor
    from dynamo_planner.executors.etcd import Etcd, RouterKnobs, WithRouter  # noqa: PLC0415  # needs the extra etcd

    tls: ssl.SSLContext | None = None
    try:
        password = None if config.password_file is None else config.password_file.read_text().rstrip("\r\n")
        if config.ca_file or config.cert_file:
            tls = ssl.create_default_context(cafile=config.ca_file)
        if tls is not None and config.cert_file and config.key_file:
            tls.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"router: a file does not read: {error}"]) from error
    etcd = Etcd(config.url, user=config.user, password=password, tls=tls, timeout_s=config.timeout_s)
    return WithRouter(executor, RouterKnobs(etcd, namespace=config.namespace, model=config.model))


def _acting(config: CircusConfig | KubernetesConfig | DryRunConfig) -> Acting:
    """The executor that acts itself, not yet started."""
    if isinstance(config, DryRunConfig):
        return DryRunExecutor(config.pools, config.replicas)
    return _on_kubernetes(config) if isinstance(config, KubernetesConfig) else _on_circus(config)


def _on_kubernetes(config: KubernetesConfig) -> KubernetesExecutor:
    from dynamo_planner.executors.kubernetes import Api, Election, KubernetesExecutor  # noqa: PLC0415  # needs the extra

    api = Api.connect(config.kubeconfig, config.context)
    namespace, lease = config.namespace or api.namespace, config.lease
    chosen = {"pools", "namespace", "kubeconfig", "context", "lease", "kind"}
    try:
        return KubernetesExecutor(
            config.pools,
            api,
            namespace=namespace,
            election=Election(api, namespace, lease.name, lease_s=lease.seconds) if lease else None,
            **{name: getattr(config, name) for name in KubernetesConfig.model_fields if name not in chosen},
        )
    except ValueError as error:
        raise ConfigError([f"executor.{error}"]) from error


def _on_circus(circus: CircusConfig) -> CircusExecutor:
    from dynamo_planner.executors.circus import CircusExecutor  # noqa: PLC0415  # needs the extra circus

    try:
        return CircusExecutor(
            circus.namespace, circus.pools, endpoint=circus.endpoint, state_dir=circus.state_dir, gpus=circus.gpus
        )
    except ValueError as error:
        raise ConfigError([f"executor: {error}"]) from error
