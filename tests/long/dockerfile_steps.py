"""The steps of a Dockerfile in an empty folder: ``python -m tests.long.dockerfile_steps [DOCKERFILE ...]``.

A stand-in for ``docker build`` where there is no Docker: the base image is this machine's Python in an environment of
its own, absolute paths are below the folder, and of the copied context only what git knows is there. Each ``RUN`` is
run as it stands, and in the end the entry point starts: ``--help``, and ``validate`` for a configuration that it is
given. Needs a package index.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("examples/local/Dockerfile", "examples/kubernetes/Dockerfile")
ABSOLUTE = re.compile(r"(?<![\w.])/(?=(src|opt|etc|var)\b)")


def built(dockerfile: Path, image: Path) -> None:
    """Run the steps of a Dockerfile below a folder, and its entry point."""
    subprocess.run([sys.executable, "-m", "venv", str(image / "base")], check=True)
    environment = {**os.environ, "PATH": f"{image}/base/bin:/usr/bin:/bin"}
    environment.pop("PYTHONPATH", None)
    started: dict[str, list[str]] = {"ENTRYPOINT": [], "CMD": []}
    for line in dockerfile.read_text().splitlines():
        step, _, rest = line.partition(" ")
        rest = ABSOLUTE.sub(f"{image}/", rest)
        if step == "COPY":
            source, target = rest.split()
            _copied(source, Path(target))
        elif step == "RUN":
            subprocess.run(rest, shell=True, check=True, env=environment, cwd=image)
        elif step == "ENV":
            name, _, value = rest.partition("=")
            environment[name] = value
        elif step in started:
            started[step] = json.loads(rest)
    subprocess.run([*started["ENTRYPOINT"], "--help"], check=True, env=environment, stdout=subprocess.DEVNULL)
    configurations = [argument for argument in started["CMD"] if argument.endswith(".yaml")]
    for path in configurations:
        command = [*started["ENTRYPOINT"], "validate", path]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _copied(source: str, target: Path) -> None:
    listed = subprocess.run(["git", "ls-files", source], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        place = target / name if source == "." else target
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, place)


def main() -> int:
    """Build each of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dockerfiles", nargs="*", default=DOCKERFILES)
    for dockerfile in parser.parse_args().dockerfiles:
        with TemporaryDirectory(prefix="dp-image-") as image:
            built(ROOT / dockerfile, Path(image))
        print(f"{dockerfile}: its steps run, and what it starts")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
