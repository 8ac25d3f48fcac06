"""The rights of ``examples/kubernetes/rbac.yaml``: with these it works, with one less it says which is missing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from dynamo_planner import Decision, ScaleTo
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes import Election
from tests.support.kubernetes.cluster import Place
from tests.support.kubernetes.objects import ADAPTER, api_of, executor_of, graph, pod_of, scaled, settle
from tests.support.paths import EXAMPLES

RBAC = EXAMPLES / "kubernetes" / "rbac.yaml"
MANIFESTS = [each for each in yaml.safe_load_all(RBAC.read_text()) if each]
RULES = next(each for each in MANIFESTS if each["kind"] == "Role")["rules"]

RIGHTS = [
    (rule["apiGroups"][0], resource, verb) for rule in RULES for resource in rule["resources"] for verb in rule["verbs"]
]


def without(right: tuple[str, str, str] | None) -> list[dict[str, Any]]:
    """The rules of the role but for one right."""
    kept: list[dict[str, Any]] = []
    for group, resource, verb in RIGHTS:
        if (group, resource, verb) != right:
            kept.append({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
    return kept


def everything(place: Place, rules: list[dict[str, Any]]) -> Iterator[str]:
    """Grant exactly ``rules``, have a planner do all it can with them, and yield every complaint."""
    for manifest in MANIFESTS:
        granted = {**manifest, "rules": rules} if manifest["kind"] == "Role" else manifest
        place.create(granted)
    account = next(each for each in MANIFESTS if each["kind"] == "ServiceAccount")["metadata"]["name"]
    token = place.token(account)
    api = api_of(place, token=token)
    pools = {"prefill": scaled("prefill", name="llama"), "decode": scaled(name="llama")}
    election = Election(api, place.namespace, "planner", lease_s=3)
    executor = executor_of(place, pools, token=token, election=election, events=True)
    try:
        executor.start()
        executor.observe()
        actions = (ScaleTo(pool="prefill", replicas=2, expected=1), ScaleTo(pool="decode", replicas=3, expected=2))
        outcomes = executor.apply(actions)
        yield from (outcome.message for outcome in outcomes if outcome.status != "applied")
        executor.tell(Decision(at_s=0.0, actions=actions), outcomes)
        renewed = place.get("coordination.k8s.io/v1", "Lease", "planner")["spec"]["renewTime"]
        place.until(
            lambda: place.get("coordination.k8s.io/v1", "Lease", "planner")["spec"]["renewTime"] != renewed, within_s=2
        )
    except ExecutorError as error:
        yield str(error)
    except AssertionError:
        yield "the lease is not renewed"
    finally:
        executor.close()


@pytest.fixture
def llama(kubernetes: Place) -> Place:
    """A graph whose prefill is scaled in the graph and whose decode through an adapter."""
    kubernetes.create(graph(Prefill=1, Decode=2))
    settle(kubernetes, Prefill=1, Decode=2)
    kubernetes.create(pod_of("Decode", 0))
    spec = {"replicas": 2, "dgdRef": {"name": "llama"}}
    kubernetes.create(
        {"apiVersion": "nvidia.com/v1beta1", "kind": ADAPTER, "metadata": {"name": "llama-decode"}, "spec": spec}
    )
    return kubernetes


def test_with_these_rights_it_works(llama: Place, caplog: pytest.LogCaptureFixture) -> None:
    assert list(everything(llama, without(None))) == []
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: " ".join(right).strip())
def test_with_one_right_less_it_names_the_verb_and_the_resource(
    llama: Place, right: tuple[str, str, str], caplog: pytest.LogCaptureFixture
) -> None:
    _, resource, verb = right
    complaints = [*everything(llama, without(right)), *(record.message for record in caplog.records)]
    assert any(f'cannot {verb} resource "{resource}"' in complaint for complaint in complaints), complaints
