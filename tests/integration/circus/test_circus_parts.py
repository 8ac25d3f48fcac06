"""The parts of the Circus executor that need no process."""

from __future__ import annotations

import json
import os
import re
import signal
import types
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from dynamo_planner import PoolSpec
from dynamo_planner.executors import ExecutorError
from dynamo_planner.executors.circus import CircusPool, gpus
from dynamo_planner.executors.circus.names import check_components, check_namespace, free_name
from dynamo_planner.executors.circus.placeholders import PLACEHOLDERS, check, fill
from dynamo_planner.executors.circus.processes import alive, identify, send
from dynamo_planner.executors.circus.records import Process
from tests.support.laws import examples

if TYPE_CHECKING:
    from tests.support.circus.place import Place

SPEC = PoolSpec(role="decode")
VALUES = dict.fromkeys(PLACEHOLDERS, "7")

jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@examples(50)
@given(jsons)
def test_json_passes_through_placeholders_unchanged_or_is_refused(value: Any) -> None:
    text = json.dumps({"value": value})
    try:
        check(text, ())
    except ValueError:
        assert re.search(r"\{[a-z_]+\}", text), "only what looks like a placeholder is refused"
    else:
        assert fill(text, VALUES) == text or any(f"{{{word}}}" in text for word in PLACEHOLDERS)


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("--port={port}", "--port=7"),
        ('{"port":{port}}', '{"port":7}'),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ("{% if x %}{{bos_token}}{{ role }}", "{% if x %}{{bos_token}}{{ role }}"),
        ("$(circus.wid) ((circus.wid)) $WID ${HOME}", None),
        ("{name}{gpus}", "77"),
    ],
)
def test_only_bare_words_between_single_braces_are_placeholders(text: str, filled: str | None) -> None:
    if filled is None:
        assert fill(text.replace("${HOME}", ""), VALUES) == text.replace("${HOME}", "")
    else:
        check(text, ())
        assert fill(text, VALUES) == filled


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"command": "serve --port={port}"}, "an argument list is needed, not a shell string"),
        ({"command": []}, "at least 1 item"),
        ({"command": ["serve", "{prot}"]}, r"unknown placeholder \{prot\} in '\{prot\}'; there are \{port\}"),
        ({"command": ["serve", "{port}\0"]}, "null character"),
        ({"env": {"A": "{wid}"}}, r"unknown placeholder \{wid\}"),
        ({"env": {"A=B": "c"}}, "should match pattern"),
        ({"env": {"CUDA_VISIBLE_DEVICES": "0"}}, "CUDA_VISIBLE_DEVICES is set by the executor"),
        ({"command": ["serve"]}, r"put \{port\} into command or env, or set health to null"),
        ({"health": "health"}, "should match pattern"),
        ({"health": "/a b"}, "should match pattern"),
        ({"component": "a/b"}, "should match pattern"),
        ({"graceful_timeout_s": -1}, "greater than or equal to 0"),
        ({"inherit_env": ["HF_TOKEN "]}, "should match pattern"),
        ({"comand": []}, "Extra inputs are not permitted"),
    ],
)
def test_a_pool_that_cannot_be_is_refused_with_its_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CircusPool.model_validate({"spec": SPEC, "command": ["serve", "{port}"], **fields})


def test_a_pool_survives_json_and_cannot_be_changed() -> None:
    pool = CircusPool(spec=SPEC, command=("serve", "--port={port}"), env={"A": "{name}"})
    assert CircusPool.model_validate_json(pool.model_dump_json()) == pool
    with pytest.raises(ValidationError):
        pool.command = ("rm",)  # type: ignore[misc]
    assert hash(pool) == hash(pool.model_copy())


@pytest.mark.parametrize("namespace", ["", "A", "../x", "a b", "a.json", "-a", "x" * 64, "a/b", "a\n"])
def test_a_namespace_that_cannot_name_a_file_is_refused(place: Place, namespace: str) -> None:
    with pytest.raises(ValueError, match="namespace"):
        check_namespace(namespace)
    with pytest.raises(ValueError, match="namespace"):
        place.executor(namespace.join(["\n", "/"]), pools={})


@pytest.mark.parametrize("pair", [("a", "A"), ("decode", "Decode_12"), ("decode_1", "decode")])
def test_components_whose_workers_could_get_the_same_name_are_refused(place: Place, pair: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="would name their workers alike"):
        check_components(pair)
    with pytest.raises(ValueError, match="would name their workers alike"):
        place.executor(pools={"x": place.pool(component=pair[0]), "y": place.pool(component=pair[1])})
    check_components(["decode", "decode_1x", "prefill"])


@given(st.sets(st.integers(0, 12)))
def test_names_are_given_in_order_and_never_twice(numbers: set[int]) -> None:
    names = {f"NS_pool_{number}" if number else "ns_POOL" for number in numbers}
    expected = next(number for number in range(14) if number not in numbers)
    assert free_name("ns", "pool", names) == (f"ns_pool_{expected}" if expected else "ns_pool")


def test_a_process_is_not_another_one_with_its_pid() -> None:
    me = identify(os.getpid())
    assert me is not None and alive(me)
    for other in ({"started_ticks": me.started_ticks - 1}, {"boot_id": "x"}):
        changed = me.replace(**other)
        assert not alive(changed)
        send(changed, signal.SIGKILL)
    assert not alive(None)
    assert not alive(Process(pid=2**22 + 1, started_ticks=1, boot_id=me.boot_id))


class Nvml(types.SimpleNamespace):
    """As much of NVML as is asked of it, on a machine with four GPUs."""

    NVMLError = RuntimeError

    def nvmlInit(self) -> None:  # noqa: N802
        if self.broken:
            raise RuntimeError("Driver Not Loaded")

    def nvmlShutdown(self) -> None:  # noqa: N802
        pass

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 4

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid != "GPU-cafe":
            raise RuntimeError("Not Found")
        return 3

    def nvmlDeviceGetIndex(self, handle: int) -> int:  # noqa: N802
        return handle


@pytest.mark.parametrize(
    ("visible", "found"),
    [(None, (0, 1, 2, 3)), ("2,1", (2, 1)), ("1, GPU-cafe", (1, 3)), ("", ()), ("-1", ()), ("NoDevFiles", ())],
)
def test_gpus_are_those_that_the_environment_leaves(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, found: tuple[int, ...]
) -> None:
    monkeypatch.setattr(gpus, "pynvml", Nvml(broken=False))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus.detect_gpus() == found


def test_without_driver_or_package_there_are_no_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "pynvml", Nvml(broken=True))
    assert gpus.detect_gpus() == ()
    monkeypatch.setattr(gpus, "pynvml", None)
    assert gpus.detect_gpus() == ()
    monkeypatch.setattr(gpus, "pynvml", Nvml(broken=False))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-dead")
    with pytest.raises(ExecutorError, match="'GPU-dead' is no GPU of this machine"):
        gpus.detect_gpus()
