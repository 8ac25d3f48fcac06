"""A model without weights, in Hugging Face's files: a configuration, and a tokenizer with a word for each token."""

from __future__ import annotations

import json
from pathlib import Path

WORDS = 4096
"""Dynamo's mocker draws token ids up to 2000; without a word for them there is no text, and so no first token."""


def write_model(directory: Path) -> None:
    """Write a model into a new directory."""
    special = ["<unk>", "<s>", "</s>"]
    words = special + [f"w{number}" for number in range(len(special), WORDS)]
    added = [
        {"id": number, "content": word, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for number, word in enumerate(special)
    ]
    model = {"type": "WordLevel", "vocab": {word: number for number, word in enumerate(words)}, "unk_token": "<unk>"}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    files = {
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "model": model,
            **parts,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": "<unk>",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "model_max_length": 8192,
            "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
        },
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "num_hidden_layers": 2,
            "vocab_size": len(words),
            "max_position_embeddings": 8192,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "rms_norm_eps": 1e-5,
            "torch_dtype": "float32",
        },
    }
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
