"""The OpenAI-compatible completions API as vLLM speaks it: from a body to what an engine needs, and back to JSON.

A simulated engine knows no words. A prompt is as long as it has words (or token ids), every token is the same, and a
request gets exactly ``max_tokens`` of them, as if the end-of-sequence token never came (``ignore_eos``). What only
changes which tokens come (``temperature``, ``stop``, ``seed``, ...) is accepted and does nothing.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from dynamo_planner.core.snapshot import Role

PIECE = " token"
"""The text of every token."""

DEFAULT_MAX_TOKENS = {"completion": 16, "chat": 128}
"""For completions as OpenAI has it; a chat model would say when it is done."""

PREFILL_ONLY = (
    'this worker only prefills: send "max_tokens": 1, "stream": false and "kv_transfer_params": '
    '{"do_remote_decode": true}'
)

Kind = Literal["completion", "chat"]


class OpenAiError(Exception):
    """A request that cannot be served, with its HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def body(self) -> dict[str, Any]:
        """As vLLM words it."""
        kind = {400: "BadRequestError", 404: "NotFoundError", 413: "PayloadTooLargeError"}
        named = kind.get(self.status, "ServiceUnavailableError")
        return {"error": {"message": str(self), "type": named, "param": None, "code": self.status}}


class StreamOptions(BaseModel):
    """``stream_options`` of a body."""

    include_usage: bool = False


class KvTransfer(BaseModel):
    """``kv_transfer_params`` of a body: vLLM's convention for disaggregated serving."""

    do_remote_decode: bool = False
    do_remote_prefill: bool = False


class Arguments(BaseModel):
    """``vllm_xargs`` of a body, where vLLM takes what an extension needs; ``cached_tokens`` of the prompt are taken as
    found in the prefix cache."""

    cached_tokens: Annotated[int, Field(ge=0)] = 0


class Body(BaseModel):
    """The fields of a body that matter here."""

    model: str | None = None
    prompt: Any = None
    messages: Any = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    kv_transfer_params: KvTransfer | None = None
    vllm_xargs: Arguments | None = None


class Completion:
    """One request: what the engine is to do, and how the answer is worded.

    ``prefilled`` requests come with the KV cache of their prompt, ``handed_on`` ones leave theirs to another worker.
    """

    def __init__(self, kind: Kind, raw: Any, *, model: str, role: Role) -> None:
        body = _validated(raw)
        if body.model is not None and body.model != model:
            raise OpenAiError(404, f"The model `{body.model}` does not exist; this worker serves `{model}`.")
        if body.n not in (None, 1):
            raise OpenAiError(400, f"n must be 1, got {body.n}: a simulated worker gives one choice.")
        self.kind = kind
        self.model = model
        self.id = f"{'cmpl' if kind == 'completion' else 'chatcmpl'}-{uuid.uuid4().hex}"
        self.created = int(time.time())
        self.isl = _prompt_tokens(body.prompt) if kind == "completion" else _message_tokens(body.messages)
        self.osl = body.max_completion_tokens or body.max_tokens or DEFAULT_MAX_TOKENS[kind]
        self.cached = min(body.vllm_xargs.cached_tokens, self.isl) if body.vllm_xargs else 0
        self.stream = bool(body.stream)
        self.include_usage = body.stream_options is not None and body.stream_options.include_usage
        transfer = body.kv_transfer_params or KvTransfer()
        self.handed_on = role == "prefill" and transfer.do_remote_decode
        self.prefilled = role == "decode" and transfer.do_remote_prefill
        if role == "prefill" and (not self.handed_on or self.osl > 1 or self.stream):
            raise OpenAiError(400, PREFILL_ONLY)
        if role == "decode" and transfer.do_remote_decode:
            raise OpenAiError(400, "this worker decodes: kv_transfer_params.do_remote_decode is for a prefill worker")

    def usage(self) -> dict[str, Any]:
        """The tokens of a finished request."""
        return {
            "prompt_tokens": self.isl,
            "completion_tokens": self.osl,
            "total_tokens": self.isl + self.osl,
            "prompt_tokens_details": {"cached_tokens": self.isl if self.prefilled else self.cached},
        }

    def whole(self, kv_transfer_params: Mapping[str, Any] | None) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        text = PIECE * self.osl
        said = {"text": text} if self.kind == "completion" else {"message": {"role": "assistant", "content": text}}
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": "length"}
        name = "text_completion" if self.kind == "completion" else "chat.completion"
        return {
            **self._head(name),
            "choices": [choice],
            "usage": self.usage(),
            "kv_transfer_params": kv_transfer_params,
        }

    def opening(self) -> bytes:
        """What a stream begins with, before the first token."""
        return self._chunk({"role": "assistant", "content": ""}, None) if self.kind == "chat" else b""

    def token(self) -> bytes:
        """The chunk of a token; they are all alike but for the last."""
        return self._token(None)

    def last_token(self) -> bytes:
        """The chunk of the last token."""
        return self._token("length")

    def closing(self) -> bytes:
        """What a stream ends with."""
        usage = _sse({**self._head(self._chunk_name()), "choices": [], "usage": self.usage()})
        return (usage if self.include_usage else b"") + b"data: [DONE]\n\n"

    def _token(self, finish_reason: str | None) -> bytes:
        return self._chunk({"content": PIECE} if self.kind == "chat" else PIECE, finish_reason)

    def _chunk(self, said: Any, finish_reason: str | None) -> bytes:
        field = "text" if self.kind == "completion" else "delta"
        choice = {"index": 0, field: said, "logprobs": None, "finish_reason": finish_reason}
        return _sse({**self._head(self._chunk_name()), "choices": [choice]})

    def _chunk_name(self) -> str:
        return "text_completion" if self.kind == "completion" else "chat.completion.chunk"

    def _head(self, name: str) -> dict[str, Any]:
        return {"id": self.id, "object": name, "created": self.created, "model": self.model}


def _sse(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


def _validated(raw: Any) -> Body:
    if not isinstance(raw, dict):
        raise OpenAiError(400, f"the body must be a JSON object, got {type(raw).__name__}")
    try:
        return Body.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise OpenAiError(400, f"{place}: {first['msg']}, got {first['input']!r:.100}") from None


def _prompt_tokens(prompt: Any) -> int:
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return max(len(prompt.split()), 1)
    if isinstance(prompt, list) and prompt and all(type(token) is int for token in prompt):
        return len(prompt)
    raise OpenAiError(400, f"prompt must be one string or one list of token ids, got {prompt!r:.100}")


def _message_tokens(messages: Any) -> int:
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise OpenAiError(400, f"messages must be a list of objects with role and content, got {messages!r:.100}")
    return max(sum(len(text.split()) for message in messages for text in _texts(message.get("content"))), 1)


def _texts(content: Any) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if isinstance(content, list) and all(isinstance(part, dict) for part in content):
        return [part["text"] for part in content if isinstance(part.get("text"), str)]
    raise OpenAiError(400, f"content must be a string or a list of parts, got {content!r:.100}")
