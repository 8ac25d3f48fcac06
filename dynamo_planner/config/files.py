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
            return json.loads(text)
        except ValueError as error:
            raise ConfigError([f"{path}: not JSON: {error}"]) from error
    if path.suffix in {".yaml", ".yml"}:
        with needs_extra("cli"):
            import yaml  # noqa: PLC0415
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError([f"{path}: not YAML: {' '.join(str(error).split())}"]) from error
    raise ConfigError([f"{path}: expected a file that ends in .json, .yaml or .yml"])
