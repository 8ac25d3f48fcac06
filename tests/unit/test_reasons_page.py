"""The page of reason codes has every code of the package, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHAPE = re.compile(r"^[A-Z][a-z]+([A-Z][a-z]+)*$")
ALSO_CLASSES = {"GapBound", "HpaMetric", "Saturated"}  # a code and a class have the same name
MADE = {"ScaleUpStabilized", "ScaleDownStabilized", "ScaleRefused", "ScaleFailed"}  # put together at run time
PARTS_OF_MADE = {"ScaleUp", "ScaleDown"}
DIRECTORIES_WITHOUT = {
    "cli",
    "demo",
    "engines",
    "evaluation",
    "integrations",
    "mock_workers",
    "profiles",
    "simulator",
    "workloads",
}
OTHER_WORDS = """
    Accept Age All Authorization Completed ContainersReady CrashLoopBackOff CreateContainerConfigError
    CreateContainerError Date Deployment Disabled DoesNotExist DynamoGraphDeployment
    DynamoGraphDeploymentScalingAdapter ErrImagePull Failed False HorizontalPodAutoscaler ImageInspectError
    ImagePullBackOff In InvalidImageName LeaderWorkerSet Lease Location NoDevFiles Normal NotIn OnDelete
    PodCliqueScalingGroup PodScheduled ProgressDeadlineExceeded Progressing ReadinessGatesNotReady Ready
    ReplicaFailure RunContainerError Scale ScaledObject SelectPolicy
    Stabilized StatefulSet True Unknown UpdateInProgress Warning
"""
"""Words of HTTP, Kubernetes and NVIDIA that have the shape of a code."""


def in_code() -> set[str]:
    classes: set[str] = set()
    strings: set[str] = set()
    exported: set[str] = set()
    for path in (ROOT / "dynamo_planner").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found = {
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        classes |= {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        if path.name in {"__init__.py", "_moved.py"}:
            exported |= found
        elif path.relative_to(ROOT / "dynamo_planner").parts[0] not in DIRECTORIES_WITHOUT:
            strings |= found
    shaped = {each for each in strings if SHAPE.match(each)}
    return (shaped - ((classes | exported) - ALSO_CLASSES) - set(OTHER_WORDS.split()) - PARTS_OF_MADE) | MADE


def on_the_page() -> set[str]:
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    rows = [line.split(" | ", 1)[0] for line in page.splitlines() if line.startswith("| `")]
    events = page.rsplit("\n\n", 1)[1]
    return {code for row in (*rows, events) for code in re.findall(r"`(\w+)`", row)}


def test_the_page_has_every_code() -> None:
    assert in_code() - on_the_page() == set(), "explain them in docs/reasons.md, or name them as other words"


def test_the_page_has_no_code_that_is_gone() -> None:
    assert on_the_page() - in_code() == set()
