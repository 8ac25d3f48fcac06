"""The OpenAPI description of the HTTP service, out of the types that it takes and gives."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

import dynamo_planner


def openapi(request: type[BaseModel], decision: type[BaseModel], explanation: type[BaseModel]) -> dict[str, Any]:
    """An OpenAPI 3.1 document."""
    mode: JsonSchemaMode = "validation"  # what goes in and comes out is the same, and maps are typed
    wanted = [(request, mode), (decision, mode), (explanation, mode)]
    references, schema = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    body = {"required": True, "content": _content(references[request, mode])}
    problems = {"type": "object", "properties": {"problems": {"type": "array", "items": {"type": "string"}}}}
    wrong = {"description": "what is wrong, one line for each problem", "content": _content(problems)}

    def post(summary: str, answer: type[BaseModel]) -> dict[str, Any]:
        answered = {"description": summary, "content": _content(references[answer, mode])}
        return {"post": {"summary": summary, "requestBody": body, "responses": {"200": answered, "422": wrong}}}

    def get(summary: str) -> dict[str, Any]:
        answered = {"description": summary, "content": _content({"type": "object"})}
        return {"get": {"summary": summary, "responses": {"200": answered}}}

    return {
        "openapi": "3.1.0",
        "info": {"title": "dynamo_planner", "version": dynamo_planner.__version__},
        "paths": {
            "/v1/decide": post("The decision for a snapshot, with the state to hand back next time", decision),
            "/v1/explain": post("The decision in words", explanation),
            "/v1/policy": get("The policy as data"),
            "/healthz": get("Whether it serves"),
        },
        "components": {"schemas": schema.get("$defs", {})},
    }


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
