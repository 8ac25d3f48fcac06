"""What goes wrong between a planner and an API server: nothing is half-applied in silence, and the loop survives it."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from dynamo_planner import Observation, Outcome, Planner, Replicas, ScaleTo, SetKnob, Traffic
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.kubernetes import KubernetesExecutor
from tests.support.kubernetes.cluster import Place, install_crds, new_place
from tests.support.kubernetes.control_plane import ControlPlane
from tests.support.kubernetes.faulty_proxy import Fault, Proxy
from tests.support.kubernetes.objects import GRAPH, executor_of, graph, pod_of, replicas_of, scaled, settle

V1BETA1 = "nvidia.com/v1beta1"
DECODE = {"decode": scaled(name="llama")}
UP = ScaleTo(pool="decode", replicas=4, expected=2)


@pytest.fixture
def llama(kubernetes: Place) -> Place:
    """A graph with two ready decode workers."""
    kubernetes.create(graph(Decode=2))
    settle(kubernetes, Decode=2)
    for number in range(2):
        kubernetes.create(pod_of("Decode", number))
    return kubernetes


def apply(executor: KubernetesExecutor, action: ScaleTo = UP) -> Outcome:
    """The outcome of one action."""
    (outcome,) = executor.apply([action])
    return outcome


class Quiet:
    """A source of which nothing is asked."""

    def observe(self, at_s: float) -> Observation:
        return Observation(traffic=Traffic(requests_per_s=1))


def planner_of(executor: KubernetesExecutor, replicas: int) -> Planner:
    """A planner that always wants this many decode workers."""
    return Planner(lambda _: {"decode": replicas}, Quiet(), executor, interval_s=0.1)


class TestBusyServer:
    """Conflicts, bursts of 429 and 5xx, and answers that are lost."""

    def test_a_conflict_on_a_write_is_tried_again_with_fresh_data(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        written = threading.Event()

        def touch(method: str, path: str) -> Fault | None:
            """Between the read and the first write of the executor, the operator writes the status."""
            if method == "PATCH" and not written.is_set():
                written.set()
                settle(llama, Decode=2, more={"state": "touched"})
            return None

        proxy.rule = touch
        assert apply(executor).status == "applied"
        assert len(proxy.writes()) == 2  # the API server answered 409 to the first
        assert replicas_of(llama, "Decode") == 4

    def test_conflicts_on_every_write_end_as_a_failure_and_not_as_a_loop(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url, patience_s=1.0)
        proxy.times(1000, Fault(409), "PATCH")
        outcome = apply(executor)
        assert outcome.status == "failed"
        assert "given up for this tick" in outcome.message
        assert "409" in outcome.message
        assert 3 <= len(proxy.writes()) <= 5
        assert replicas_of(llama, "Decode") == 2

    def test_the_components_moving_under_a_json_patch_is_a_conflict(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        moved = threading.Event()

        def reorder(method: str, path: str) -> Fault | None:
            if method == "PATCH" and not moved.is_set():
                moved.set()
                parts = [{"name": "Frontend", "replicas": 1}, {"name": "Decode", "type": "decode", "replicas": 2}]
                llama.patch(V1BETA1, GRAPH, "llama", {"spec": {"components": parts}})
            return None

        proxy.rule = reorder
        outcome = apply(executor)
        assert outcome.status == "applied", outcome
        assert (replicas_of(llama, "Frontend"), replicas_of(llama, "Decode")) == (1, 4)

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_burst_is_waited_out_as_long_as_the_server_asks(self, llama: Place, proxy: Proxy, status: int) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        executor.observe()
        proxy.asked.clear()
        proxy.times(2, Fault(status, {"Retry-After": "1"}), "PATCH")
        began_s = time.monotonic()
        assert apply(executor).status == "applied"
        assert time.monotonic() - began_s >= 2.0
        proxy.times(2, Fault(status), "GET")
        assert executor.observe()["decode"] is None
        assert "generation" in executor.unknown["decode"]  # which was read, after two refusals

    def test_a_server_that_asks_for_a_long_pause_is_left_alone(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        for method, act in (("PATCH", lambda: apply(executor)), ("GET", executor.observe)):
            proxy.times(1, Fault(429, {"Retry-After": "3600"}), method)
            began_s = time.monotonic()
            try:
                outcome = act()
            except ExecutorError as error:
                assert "429" in str(error)
            else:
                assert isinstance(outcome, Outcome)
                assert (outcome.status, replicas_of(llama, "Decode")) == ("failed", 2)
            assert time.monotonic() - began_s < 5

    @pytest.mark.parametrize("status", [500, 504])
    def test_a_write_whose_answer_was_lost_is_recognised(self, llama: Place, proxy: Proxy, status: int) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        executor.observe()
        proxy.times(1, Fault(status, done_first=True), "PATCH")
        outcome = apply(executor)
        assert (outcome.status, outcome.message) == ("applied", "decode has 4 replicas")
        assert len(proxy.writes()) == 1
        settle(llama, Decode=2)
        executor.observe()
        assert apply(executor, ScaleTo(pool="decode", replicas=3, expected=4)).status == "applied"

    def test_a_server_that_never_answers_is_timed_out(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url, patience_s=0.5)
        executor.cluster.api.timeout_s = 0.3
        proxy.times(1000, Fault(200, delay_s=1.0))
        began_s = time.monotonic()
        assert apply(executor).status == "failed"
        with pytest.raises(ExecutorError, match="did not answer"):
            executor.observe()
        assert time.monotonic() - began_s < 5


class TestRefusal:
    """What the server refuses for good is told at once, in its words."""

    def test_a_value_that_the_schema_refuses(self, llama: Place, proxy: Proxy) -> None:
        executor = executor_of(llama, DECODE, url=proxy.url)
        outcome = apply(executor, ScaleTo(pool="decode", replicas=65, expected=2))
        assert outcome.status == "failed"
        assert "422" in outcome.message
        assert "spec.components" in outcome.message
        assert len(proxy.writes()) == 1
        assert replicas_of(llama, "Decode") == 2

    def test_more_than_the_pool_may_have_and_what_nobody_can_set(self, llama: Place) -> None:
        executor = executor_of(llama, {"decode": scaled(spec={"max_replicas": 3}, name="llama")})
        knob, unknown = SetKnob(knob="max_num_seqs", value=4), ScaleTo(pool="prefill", replicas=1)
        outcomes = executor.apply([UP, knob, unknown])
        assert [outcome.status for outcome in outcomes] == ["refused"] * 3
        assert "max_replicas" in outcomes[0].message
        assert "there is no pool 'prefill'; there are decode" in outcomes[2].message

    def test_pods_that_may_not_be_listed_leave_ages_unknown_and_scaling_possible(
        self, llama: Place, proxy: Proxy, caplog: pytest.LogCaptureFixture
    ) -> None:
        settle(llama, Decode=1)
        executor = executor_of(llama, DECODE, url=proxy.url)
        proxy.times(1000, Fault(403), "GET", "/pods")
        for _ in range(2):
            assert executor.observe() == {"decode": Replicas(ready=1, starting=1, target=2)}
        assert sum("stays unknown" in record.message for record in caplog.records) == 1
        assert apply(executor).status == "applied"

    def test_a_dry_run_is_checked_by_the_server_and_changes_nothing(self, llama: Place) -> None:
        executor = executor_of(llama, DECODE, dry_run=True)
        executor.observe()
        outcome = apply(executor)
        assert (outcome.status, outcome.message) == (
            "unchanged",
            "dry run: the API server would take decode: 2 -> 4 replicas",
        )
        assert apply(executor, ScaleTo(pool="decode", replicas=65, expected=2)).status == "failed"
        assert replicas_of(llama, "Decode") == 2


HPA = {"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "theirs"}}


class TestOthers:
    """Somebody else scales the same: autoscalers, people, and whoever deletes and creates it anew."""

    @pytest.mark.parametrize(
        ("reference", "owns"),
        [
            ({"apiVersion": V1BETA1, "kind": "DynamoGraphDeploymentScalingAdapter", "name": "llama-decode"}, True),
            ({"apiVersion": "nvidia.com/v1alpha1", "kind": GRAPH, "name": "llama"}, True),
            ({"apiVersion": V1BETA1, "kind": "DynamoGraphDeploymentScalingAdapter", "name": "llama-prefill"}, False),
            ({"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}, False),
        ],
    )
    def test_an_hpa_added_while_running_takes_over(self, llama: Place, reference: dict[str, str], owns: bool) -> None:
        executor = executor_of(llama, DECODE)
        assert apply(executor, ScaleTo(pool="decode", replicas=3, expected=2)).status == "applied"
        llama.create({**HPA, "spec": {"maxReplicas": 9, "scaleTargetRef": reference}})
        outcome = apply(executor, ScaleTo(pool="decode", replicas=4, expected=3))
        assert outcome.status == ("refused" if owns else "applied")
        assert not owns or outcome.message.startswith("HorizontalPodAutoscaler theirs scales llama")
        unchecked = executor_of(llama, DECODE, check_autoscalers=False)
        assert apply(unchecked, ScaleTo(pool="decode", replicas=5)).status == "applied"

    def test_a_scaled_object_is_named_and_not_the_hpa_that_keda_made_of_it(self, kubernetes: Place) -> None:
        deployment = {"matchLabels": {"app": "vllm"}}
        template = {"metadata": {"labels": {"app": "vllm"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        kubernetes.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "vllm"},
                "spec": {"replicas": 2, "selector": deployment, "template": template},
            }
        )
        pools = {"decode": scaled("decode", {"gpus": 0}, kind="Deployment", name="vllm")}
        executor = executor_of(kubernetes, pools)
        reference = {"name": "vllm"}  # KEDA takes it for a Deployment
        kubernetes.create(
            {
                "apiVersion": "keda.sh/v1alpha1",
                "kind": "ScaledObject",
                "metadata": {"name": "theirs"},
                "spec": {"scaleTargetRef": reference},
            }
        )
        made = {"maxReplicas": 9, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", **reference}}
        kubernetes.create({**HPA, "metadata": {"name": "keda-hpa-theirs"}, "spec": made})
        outcome = apply(executor)
        assert outcome.status == "refused"
        assert outcome.message.startswith("ScaledObject theirs scales vllm")

    @staticmethod
    def edit(place: Place, replicas: int) -> None:
        """Somebody sets the replicas by hand."""
        parts = [{"name": "Decode", "type": "decode", "replicas": replicas}]
        path = place.path(V1BETA1, GRAPH, "llama") + "?fieldManager=kubectl-edit"
        place.server.request(
            "PATCH", path, {"spec": {"components": parts}}, content_type="application/merge-patch+json"
        )
        settle(place, Decode=2)

    def test_replicas_edited_by_hand_are_left_alone_for_a_time(self, llama: Place) -> None:
        now = [1000.0]
        executor = executor_of(llama, DECODE, yield_s=60.0, clock=lambda: now[0])
        executor.observe()
        self.edit(llama, 6)
        outcome = apply(executor)  # before the executor has looked again
        assert outcome.status == "refused"
        assert outcome.message.startswith("kubectl-edit changed the replicas from 2 to 6: left alone for another 60 s")
        now[0] += 30.0
        executor.observe()
        again = ScaleTo(pool="decode", replicas=4, expected=6)
        assert apply(executor, again).message.endswith("left alone for another 30 s (when_changed: yield)")
        now[0] += 31.0
        assert apply(executor, again).status == "applied"
        settle(llama, Decode=2)
        executor.observe()
        assert apply(executor, ScaleTo(pool="decode", replicas=3, expected=4)).status == "applied"

    def test_or_until_they_are_given_back(self, llama: Place) -> None:
        executor = executor_of(llama, DECODE)
        executor.observe()
        assert apply(executor).status == "applied"
        self.edit(llama, 6)
        executor.observe()
        assert apply(executor, ScaleTo(pool="decode", replicas=5, expected=6)).status == "refused"
        self.edit(llama, 4)
        executor.observe()
        assert apply(executor, ScaleTo(pool="decode", replicas=5, expected=4)).status == "applied"

    def test_or_taken_back_once_they_were_seen(self, llama: Place) -> None:
        executor = executor_of(llama, DECODE, when_changed="retake")
        executor.observe()
        self.edit(llama, 6)
        outcome = apply(executor)
        assert outcome.status == "refused"
        assert outcome.message == "decode has a target of 6 and not of 2, which this was decided for"
        executor.observe()
        assert apply(executor, ScaleTo(pool="decode", replicas=4, expected=6)).status == "applied"

    def test_an_object_that_was_deleted_and_created_anew_is_looked_at_first(self, llama: Place) -> None:
        executor = executor_of(llama, DECODE)
        executor.observe()
        llama.delete(V1BETA1, GRAPH, "llama")
        gone = apply(executor)
        assert (gone.status, "404" in gone.message) == ("failed", True)
        with pytest.raises(ExecutorError, match="there is no dynamographdeployments 'llama'"):
            executor.observe()
        llama.create(graph(Decode=2))
        outcome = apply(executor)
        assert outcome.status == "refused"
        assert "deleted and created anew" in outcome.message
        settle(llama, Decode=2)
        executor.observe()
        assert apply(executor).status == "applied"


class TestLoop:
    """The loop goes on through all of it, and what happened is in its log."""

    def test_it_survives_a_server_that_is_killed_in_the_middle_of_scaling(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        server = ControlPlane(tmp_path)
        try:
            server.start()
            install_crds(server)
            place = new_place(server, tmp_path)
            place.create(graph(Decode=2))
            settle(place, Decode=2)
            planner = planner_of(executor_of(place, DECODE, patience_s=1.0), 4)
            planner.executor.observe()
            server.kill_apiserver()
            step = planner.step()
            assert step.snapshot.pools["decode"].replicas is None
            assert "did not answer" in str(step.decision.reasons[0])
            assert step.decision.actions == ()
            outcome = planner.executor.apply([UP])[0]
            assert (outcome.status, "did not answer" in outcome.message) == ("failed", True)
            server.start_apiserver()
            outcomes = planner.step().outcomes
            assert [outcome.status for outcome in outcomes] == ["applied"], outcomes
            assert replicas_of(place, "Decode") == 4
        finally:
            server.stop()
        assert "planner: the executor could not be read: GET /apis/nvidia.com" in caplog.text

    def test_every_fault_in_turn(self, llama: Place, proxy: Proxy) -> None:
        planner = planner_of(executor_of(llama, DECODE, url=proxy.url, patience_s=0.3), 4)
        for fault in (Fault(401), Fault(403), Fault(404), Fault(409), Fault(422), Fault(429), Fault(500), Fault(200)):
            proxy.times(1000, fault)
            step = planner.step()
            assert step.decision.actions == (), fault
            assert step.decision.reasons[0].code == "ExecutorFailed", fault
        proxy.rule = lambda method, path: Fault(418) if method == "PATCH" else None
        assert [outcome.status for outcome in planner.step().outcomes] == ["failed"]
        proxy.rule = lambda method, path: None
        assert [outcome.status for outcome in planner.step().outcomes] == ["applied"]

    def test_why_a_pool_is_held_is_in_the_snapshot(self, llama: Place) -> None:
        llama.create(graph("beside", Prefill=1))
        settle(llama, "beside", Prefill=1)
        settle(llama, Decode=2, more={"rollingUpdate": {"phase": "InProgress"}})
        executor = executor_of(llama, {**DECODE, "prefill": scaled("prefill", name="beside")})
        step = Planner(lambda _: {"decode": 4, "prefill": 1}, Quiet(), executor).step()
        why = "DynamoGraphDeployment llama: a rollout is in progress (InProgress)"
        assert step.snapshot.missing["pools.decode.replicas"] == why
        assert step.decision.actions == ()

    def test_events_tell_why_with_the_object(self, llama: Place) -> None:
        executor = executor_of(llama, DECODE, events=True)
        Planner(lambda _: {"decode": 4}, Quiet(), executor).step()
        (event,) = llama.list("v1", "Event")
        assert event["involvedObject"]["name"] == "llama"
        assert (event["type"], event["reason"]) == ("Normal", "ScaledUp")
        assert event["message"].startswith("decode: 2 -> 4 replicas. ")
