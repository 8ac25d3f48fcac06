"""Reading the data in JSON and YAML files (YAML: extra ``cli``)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dynamo_planner.config.problems import ConfigError
from dynamo_planner.core.extras import needs_extra


def read_data(path: str | Path) -> Any:
    """Read the data in a JSON or YAML file. Raises :class:`ConfigError` where it cannot be read."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"]) from error
    if path.suffix == ".json":
        try:
            return json.loads(text, object_pairs_hook=_without_repeated_keys)
        except ValueError as error:
            raise ConfigError([f"{path}: not JSON: {error}"]) from error
    if path.suffix in {".yaml", ".yml"}:
        with needs_extra("cli"):
            from dynamo_planner.config.yaml_text import read_yaml  # noqa: PLC0415
        try:
            return read_yaml(text)
        except ValueError as error:
            raise ConfigError([f"{path}: {error}"]) from error
    raise ConfigError([f"{path}: expected a file that ends in .json, .yaml or .yml"])


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of a JSON object. Raises ``ValueError`` where a key is repeated, of which json keeps the last."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated!r} is given {keys.count(repeated)} times in one mapping")
    return mapping
