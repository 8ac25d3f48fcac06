"""A policy as an HTTP service: decisions for programs in any language (extra ``serve``).

The service keeps nothing. The caller hands the ``state`` of each decision back with the next snapshot, so that several
services can stand side by side, and a restart forgets nothing:

- ``POST /v1/decide`` with ``{"snapshot": ..., "state": ...}`` answers with the decision, its new ``state`` in it.
- ``POST /v1/explain`` with the same answers with ``{"explanation": "..."}``.
- ``GET /v1/policy`` is the policy as data, ``GET /healthz`` says that it serves, ``GET /openapi.json`` describes all.

What is wrong with a request is answered with 422 and one line for each problem, with the path of the field.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from dynamo_planner.config.problems import ConfigError, validated
from dynamo_planner.core.decision import Decision, State
from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.policy import Policy
from dynamo_planner.core.snapshot import Snapshot
from dynamo_planner.core.values import Frozen
from dynamo_planner.integrations.openapi import openapi

with needs_extra("serve"):
    from aiohttp import web

MAX_BODY_BYTES = 4 * 2**20
"""More than a snapshot with hundreds of workers and the largest state."""


class DecisionRequest(Frozen):
    """The body of a request.

    Args:
        snapshot: What is observed.
        state: The ``state`` of the decision before; left out for the first.
    """

    snapshot: Snapshot
    state: State | None = None


class Explanation(Frozen):
    """A decision in words."""

    explanation: str


def service(policy: Policy) -> web.Application:
    """The service as an application of aiohttp, to be served alone or as a part of another one."""

    async def decided(request: web.Request) -> Decision:
        try:
            data = json.loads(await request.text())
        except ValueError as error:
            raise ConfigError([f"body: not JSON: {error}"]) from error
        body = validated(DecisionRequest, data, "body")
        return await asyncio.to_thread(policy.decide, body.snapshot, body.state)

    async def decide(request: web.Request) -> web.Response:
        return _json((await decided(request)).model_dump_json())

    async def explain(request: web.Request) -> web.Response:
        return _json(Explanation(explanation=(await decided(request)).explain()).model_dump_json())

    async def shown(_: web.Request) -> web.Response:
        return _json(policy.model_dump_json())

    async def health(_: web.Request) -> web.Response:
        return _json('{"ok": true}')

    description = json.dumps(openapi(DecisionRequest, Decision, Explanation))

    async def described(_: web.Request) -> web.Response:
        return _json(description)

    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_problems])
    app.add_routes(
        [
            web.post("/v1/decide", decide),
            web.post("/v1/explain", explain),
            web.get("/v1/policy", shown),
            web.get("/healthz", health),
            web.get("/openapi.json", described),
        ]
    )
    return app


def serve(policy: Policy, host: str = "127.0.0.1", port: int = 8081) -> None:
    """Serve a policy until SIGTERM or Ctrl-C. There is no authentication: keep it on the loopback or behind a proxy."""
    web.run_app(service(policy), host=host, port=port, print=None)


def _json(text: str, status: int = 200) -> web.Response:
    return web.Response(text=text, status=status, content_type="application/json")


@web.middleware
async def _problems(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except ConfigError as error:
        return _json(json.dumps({"problems": error.problems}), status=422)
    except web.HTTPException as error:
        return _json(json.dumps({"problems": [error.reason]}), status=error.status)
    return response
