"""Pages of the site that are made from the code: the front page, commands, configuration and the Python reference."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import FunctionType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from site_docstrings import described, docstring_of

from dynamo_planner.cli.app import app
from dynamo_planner.config.kinds import kinds
from dynamo_planner.config.run import RunConfig

ROOT = Path(__file__).parents[1]
ROOMS = {
    "": "The core: snapshots, decisions, policies",
    "policies": "Policies",
    "guards": "Guards",
    "sources": "Sources",
    "executors": "Executors",
    "runtime": "The loop",
    "profiles": "Profiles",
    "sizing": "Sizing",
    "forecasting": "Forecasting",
    "workloads": "Workloads",
    "simulator": "The simulator",
    "evaluation": "Evaluation",
    "conformance": "Conformance",
    "engines": "Engines",
    "config": "Configuration files",
}
LINK_OUT = re.compile(r"\]\((?:\.\./)+((?:examples|tests|benchmarks|dynamo_planner)(?:/[^)]*)?|\w+\.(?:md|toml))\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and the files of the repository that pages link to."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {
        "index.md": _at_root(readme),
        "reference/commands.md": "\n".join(_commands()),
        "reference/configuration.md": "\n".join(_configuration()),
        "reference/python.md": "\n".join(_python()),
    }
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    texts = [pages["index.md"], *(page.read_text(encoding="utf-8") for page in Path(config.docs_dir).rglob("*.md"))]
    linked = {found for text in texts for found in LINK_OUT.findall(text)}
    for path in sorted(linked):
        for source in _files_at(ROOT / path.split("#")[0]):
            name = f"repository/{source.relative_to(ROOT)}"
            if files.get_file_from_path(f"{name}.txt") is None:
                files.append(File.generated(config, f"{name}.txt", content=source.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to files of the repository to their copies in the site."""
    up = "../" * page.file.src_uri.count("/")
    return LINK_OUT.sub(lambda found: f"]({up}{_copy_of(found[1])})", markdown)


def _copy_of(path: str) -> str:
    found = _files_at(ROOT / path.split("#", maxsplit=1)[0])
    return f"repository/{found[0].relative_to(ROOT)}.txt"


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    return [path]


def _at_root(readme: str) -> str:
    """README as the front page: its links are seen from the docs."""
    seen = re.sub(r"\]\((?!\w+:|#|docs/)", "](../", readme)
    return seen.replace("](docs/extending)", "](extending/engine.md)").replace("](docs/", "](")


def _commands() -> Iterator[str]:
    yield "# Commands\n"
    yield "Every command exits 0 when all went well, 1 when something failed, and 2 when the input was wrong.\n"
    yield from _command(typer.main.get_command(app), "dynamo-planner")


def _command(command: Any, name: str) -> Iterator[str]:
    """The section of a command, or those of a group's commands. Typer has a copy of Click of its own, untyped here."""
    if hasattr(command, "commands"):
        for each, found in sorted(command.commands.items()):
            if not found.hidden:
                yield from _command(found, f"{name} {each}")
        return
    yield f"## {name}\n\n{_text(command.help or '')}\n"
    parameters = [each for each in command.params if each.name != "help" and not getattr(each, "hidden", False)]
    if parameters:
        yield "| argument or option | default | meaning |\n| --- | --- | --- |"
    for each in parameters:
        is_option = each.param_type_name == "option"
        shown = ", ".join(f"`{option}`" for option in each.opts) if is_option else f"`{each.name.upper()}`"
        default = "" if each.default in (None, "", False, ()) or callable(each.default) else f"`{_plain(each.default)}`"
        meaning = " ".join(_text(each.help or "").split()).replace("|", r"\|")
        yield f"| {shown} | {default} | {meaning} |"
    yield ""


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))


def _text(text: str) -> str:
    return re.sub(r"``([^`]+)``", r"`\1`", text.replace("\b", "").strip())


def _configuration() -> Iterator[str]:
    yield "# Configuration\n"
    yield "`dynamo-planner run FILE` reads one YAML file. `dynamo-planner schema` prints its JSON Schema, and"
    yield "`dynamo-planner validate FILE` shows all values with their defaults and where they come from.\n"
    yield from _model(RunConfig, 2)
    for registry in kinds():
        yield f"## Kinds of {registry.what}\n"
        for kind in sorted(registry):
            yield f"### `kind: {kind}`\n"
            yield from _model(registry[kind], 4)
    yield "## Other types\n"
    for model in configuration_models()[1]:
        yield from _model(model, 3)


def configuration_models() -> tuple[list[type[BaseModel]], list[type[BaseModel]]]:
    """What a file can name by a kind, with the file itself; and the models that those have as fields."""
    shipped: list[type[BaseModel]] = [registry[kind] for registry in kinds() for kind in sorted(registry)]
    named: list[type[BaseModel]] = [RunConfig, *dict.fromkeys(shipped)]
    bases = tuple(registry.base for registry in kinds())
    found: dict[type[BaseModel], None] = {}

    def look(annotation: Any) -> None:
        for inner in get_args(annotation):
            look(inner)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in {*found, *bases}:
            found[annotation] = None
            for field in annotation.model_fields.values():
                look(field.annotation)

    for model in named:
        look(model)
    return named, sorted(found.keys() - set(named), key=lambda each: each.__name__)


def _model(model: type[BaseModel], level: int) -> Iterator[str]:
    """What a model is, and its fields with types, defaults and meaning."""
    text, _ = docstring_of(model)
    yield f"{'#' * level} {model.__name__}\n\n{text}\n"
    meaning = described(model)
    fields = {name: field for name, field in model.model_fields.items() if name != "kind"}
    if fields:
        yield "| field | type | default | meaning |\n| --- | --- | --- | --- |"
    for name, field in fields.items():
        given = field.get_default(call_default_factory=True) if not field.is_required() else None
        default = "" if field.is_required() or isinstance(given, BaseModel) else f"`{given!r}`"
        words = " ".join(meaning.get(name, "").split()).replace("|", r"\|")
        yield f"| `{name}` | {_type(field.annotation)} | {default} | {words} |"
    yield ""


def _type(annotation: Any) -> str:
    """A type in words: ``str or None``, ``list of Guard``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin in {Union, UnionType}:
        return " or ".join(map(_type, inner))
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in inner)
    if origin in {tuple, list}:
        return f"list of {_type(inner[0])}"
    if origin is not None and issubclass(origin, Mapping):
        return f"mapping of {_type(inner[0])} to {_type(inner[1])}"
    return str(getattr(annotation, "__name__", annotation)).replace("NoneType", "none")


def _python() -> Iterator[str]:
    yield "# Python\n\nAll public names, by the room that exports them.\n"
    seen: set[object] = set()
    for room, title in ROOMS.items():
        module = import_module(f"dynamo_planner.{room}".rstrip("."))
        yield f"## {title}\n"
        for name in module.__all__:
            found = getattr(module, name)
            if not isinstance(found, type | FunctionType) or found in seen:
                continue  # a constant or the name of a type, or shown under another room
            seen.add(found)
            yield f"::: {found.__module__}.{found.__qualname__}\n    options: {{heading_level: 3, members: null}}\n"
