"""Kinds of other packages, by ``package.module:Name`` and by entry points, where the caller allows them."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dynamo_planner import ConfigError, load_policy

CODE = """
from dynamo_planner import Guard, Policy, Proposal, Want

class Fixed(Policy):
    replicas: int

    def propose(self, snapshot, state):
        return Proposal(pools={pool: Want(self.replicas) for pool in snapshot.pools}), state

class Never(Guard, kind="never"):
    def limit(self, snapshot, proposal, state):
        return Proposal.hold(snapshot.pools, "never", "Never"), state
"""

ENTRY_POINTS = """
[dynamo_planner.policies]
fixed = acme_scaling.kinds:Fixed
broken = acme_scaling.nothing:Here
not_one = acme_scaling.kinds:Never

[dynamo_planner.guards]
never = acme_scaling.kinds:Never
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
        ({"kind": "not_one"}, "policy.kind: 'not_one' is not a subclass of dynamo_planner"),
        ({"kind": "never"}, "policy.kind: 'never' is no kind of policy; allowed: load, "),
        ({"kind": "fixd"}, "together, broken, fixed, not_one"),
        ({"kind": "fixed"}, "policy.replicas: Field required"),
        ({"kind": "fixed", "replica": 3}, "policy.replica: unknown field, did you mean 'replicas'? allowed: replicas"),
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
