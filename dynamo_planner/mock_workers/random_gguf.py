"""Tiny Llama models with random weights for llama.cpp: real work for a real engine, and words that mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import Field

from dynamo_planner.core.extras import needs_extra
from dynamo_planner.core.values import Frozen

with needs_extra("llamacpp"):
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, TokenType

SPECIAL = {b"<unk>": TokenType.UNKNOWN, b"<s>": TokenType.CONTROL, b"</s>": TokenType.CONTROL}
"""The first tokens of the vocabulary; those that follow stand for a byte each."""

VOCABULARY = len(SPECIAL) + 256
HEAD_SIZE = 64
WEIGHT_SCALE = 0.02


class RandomModel(Frozen):
    """A Llama of this shape, with weights in 16 bits.

    The default one takes 14 MB, and a 2026 server core about 3 ms for a token of a request on its own.
    """

    width: int = Field(default=384, ge=HEAD_SIZE, multiple_of=HEAD_SIZE)
    layers: int = Field(default=4, ge=1)
    hidden: int = Field(default=1024, ge=1)
    context_tokens: int = Field(default=32_768, ge=1)
    seed: int = 0

    def write(self, path: Path) -> None:
        """Write it as a GGUF file."""
        writer = GGUFWriter(path, "llama")
        self._describe(writer)
        rng = np.random.default_rng(self.seed)
        for name, shape in self._shapes().items():
            if len(shape) == 1:
                writer.add_tensor(name, np.ones(shape, np.float32))
                continue
            weights = WEIGHT_SCALE * rng.standard_normal(shape, np.float32)
            writer.add_tensor(name, weights.astype(np.float16), raw_dtype=GGMLQuantizationType.F16)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def _describe(self, writer: GGUFWriter) -> None:
        heads = self.width // HEAD_SIZE
        writer.add_context_length(self.context_tokens)
        writer.add_embedding_length(self.width)
        writer.add_block_count(self.layers)
        writer.add_feed_forward_length(self.hidden)
        writer.add_head_count(heads)
        writer.add_head_count_kv(heads)
        writer.add_rope_dimension_count(HEAD_SIZE)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_file_type(LlamaFileType.MOSTLY_F16)
        writer.add_vocab_size(VOCABULARY)
        writer.add_tokenizer_model("llama")
        writer.add_token_list([*SPECIAL, *(f"<0x{byte:02X}>".encode() for byte in range(256))])
        writer.add_token_types([*SPECIAL.values(), *[TokenType.BYTE] * 256])
        writer.add_token_scores([0.0] * VOCABULARY)
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the tensors, output rows first."""
        shapes: dict[str, tuple[int, ...]] = {
            "token_embd.weight": (VOCABULARY, self.width),
            "output_norm.weight": (self.width,),
            "output.weight": (VOCABULARY, self.width),
        }
        layer: dict[str, tuple[int, ...]] = {
            "attn_norm": (self.width,),
            "attn_q": (self.width, self.width),
            "attn_k": (self.width, self.width),
            "attn_v": (self.width, self.width),
            "attn_output": (self.width, self.width),
            "ffn_norm": (self.width,),
            "ffn_gate": (self.hidden, self.width),
            "ffn_up": (self.hidden, self.width),
            "ffn_down": (self.width, self.hidden),
        }
        for number in range(self.layers):
            shapes |= {f"blk.{number}.{name}.weight": shape for name, shape in layer.items()}
        return shapes
