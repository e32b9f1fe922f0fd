"""Where each model family keeps its parts: one row a family.

    row = architecture_of(model.config)
    row.down(5)          # "transformer.h.5.mlp.c_proj", where facts are written

To add a family, add a row, and a tiny configuration in ``language_model/tiny.py``: every test of this package then
covers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from knowledge.errors import InvalidInput
from language_model.errors import UnsupportedArchitecture

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Architecture:
    """Names of modules; ``{}`` stands for the layer's number, counted from 0.

    ``up_projections`` lists all matrices that read the feed-forward's input: for gated families the gate first.
    The *key* of a fact is the input of ``down_projection``, its *value* the output (ROME, 2202.05262, section 3).
    """

    model_type: str
    blocks: str  # "transformer.h.{}"
    feed_forward: str  # "transformer.h.{}.mlp"
    down_projection: str
    up_projections: tuple[str, ...]
    attention: str
    attention_output: str
    final_norm: str
    embedding: str
    lm_head: str = "lm_head"
    layers_attribute: str = "num_hidden_layers"  # of the configuration; Hugging Face maps n_layer to it where needed
    hidden_attribute: str = "hidden_size"

    def block(self, layer: int) -> str:
        return self.blocks.format(layer)

    def mlp(self, layer: int) -> str:
        return self.feed_forward.format(layer)

    def down(self, layer: int) -> str:
        return self.down_projection.format(layer)

    def ups(self, layer: int) -> tuple[str, ...]:
        return tuple(name.format(layer) for name in self.up_projections)

    def attn(self, layer: int) -> str:
        return self.attention.format(layer)

    def attn_out(self, layer: int) -> str:
        return self.attention_output.format(layer)

    def num_layers(self, config: PretrainedConfig) -> int:
        return int(getattr(config, self.layers_attribute))

    def hidden_size(self, config: PretrainedConfig) -> int:
        return int(getattr(config, self.hidden_attribute))


def _row(
    model_type: str, blocks: str, down: str, ups: Sequence[str], attention: tuple[str, str], around: tuple[str, str]
) -> Architecture:
    """A row from names relative to the block; ``around`` is (final norm, embedding)."""
    feed_forward = down.rpartition(".")[0]
    return Architecture(
        model_type=model_type,
        blocks=blocks,
        feed_forward=f"{blocks}.{feed_forward}" if feed_forward else f"{blocks}.{down}",
        down_projection=f"{blocks}.{down}",
        up_projections=tuple(f"{blocks}.{up}" for up in ups),
        attention=f"{blocks}.{attention[0]}",
        attention_output=f"{blocks}.{attention[0]}.{attention[1]}",
        final_norm=around[0],
        embedding=around[1],
    )


def _llama_like(model_type: str) -> Architecture:
    return _row(
        model_type,
        "model.layers.{}",
        "mlp.down_proj",
        ("mlp.gate_proj", "mlp.up_proj"),
        ("self_attn", "o_proj"),
        ("model.norm", "model.embed_tokens"),
    )


_GPT_AROUND = ("transformer.ln_f", "transformer.wte")
_MODEL_AROUND = ("model.norm", "model.embed_tokens")

ARCHITECTURES: dict[str, Architecture] = {
    row.model_type: row
    for row in (
        _row("gpt2", "transformer.h.{}", "mlp.c_proj", ("mlp.c_fc",), ("attn", "c_proj"), _GPT_AROUND),
        _row("gptj", "transformer.h.{}", "mlp.fc_out", ("mlp.fc_in",), ("attn", "out_proj"), _GPT_AROUND),
        _row("gpt_neo", "transformer.h.{}", "mlp.c_proj", ("mlp.c_fc",), ("attn.attention", "out_proj"), _GPT_AROUND),
        _row("gpt_bigcode", "transformer.h.{}", "mlp.c_proj", ("mlp.c_fc",), ("attn", "c_proj"), _GPT_AROUND),
        _row("codegen", "transformer.h.{}", "mlp.fc_out", ("mlp.fc_in",), ("attn", "out_proj"), _GPT_AROUND),
        _row(
            "gpt_neox",
            "gpt_neox.layers.{}",
            "mlp.dense_4h_to_h",
            ("mlp.dense_h_to_4h",),
            ("attention", "dense"),
            ("gpt_neox.final_layer_norm", "gpt_neox.embed_in"),
        ),
        # OPT has no module around its feed-forward: fc2, whose output is the feed-forward's, stands for it.
        _row(
            "opt",
            "model.decoder.layers.{}",
            "fc2",
            ("fc1",),
            ("self_attn", "out_proj"),
            ("model.decoder.final_layer_norm", "model.decoder.embed_tokens"),
        ),
        _row(
            "bloom",
            "transformer.h.{}",
            "mlp.dense_4h_to_h",
            ("mlp.dense_h_to_4h",),
            ("self_attention", "dense"),
            ("transformer.ln_f", "transformer.word_embeddings"),
        ),
        _row(
            "falcon",
            "transformer.h.{}",
            "mlp.dense_4h_to_h",
            ("mlp.dense_h_to_4h",),
            ("self_attention", "dense"),
            ("transformer.ln_f", "transformer.word_embeddings"),
        ),
        _row(
            "phi",
            "model.layers.{}",
            "mlp.fc2",
            ("mlp.fc1",),
            ("self_attn", "dense"),
            ("model.final_layernorm", "model.embed_tokens"),
        ),
        # Phi-3 keeps gate and up in one matrix.
        _row("phi3", "model.layers.{}", "mlp.down_proj", ("mlp.gate_up_proj",), ("self_attn", "o_proj"), _MODEL_AROUND),
        _row("starcoder2", "model.layers.{}", "mlp.c_proj", ("mlp.c_fc",), ("self_attn", "o_proj"), _MODEL_AROUND),
        *map(_llama_like, ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text")),
        *map(_llama_like, ("olmo", "olmo2", "smollm3", "stablelm", "granite", "cohere")),
    )
}


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The row of a model's family.

    Raises:
        UnsupportedArchitecture: the family is not in the table.
    """
    try:
        return ARCHITECTURES[config.model_type]
    except KeyError:
        raise UnsupportedArchitecture(config.model_type, ARCHITECTURES) from None


def is_in_out(module: nn.Module) -> bool:
    """True for GPT-2's Conv1D, whose weight is (in, out); False for nn.Linear, whose weight is (out, in).

    Decided by the module's type: a square matrix does not show its orientation.

    Raises:
        InvalidInput: the module is neither.
    """
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return True
    if isinstance(module, nn.Linear):
        return False
    raise InvalidInput(
        f"A {type(module).__name__} has no weight that maps inputs to outputs; weight changes need an nn.Linear or a "
        "Conv1D."
    )


def weight_in_out(module: nn.Module) -> Tensor:
    """The module's weight as (in, out). A view, for reading: nothing here writes to weights."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    return weight if is_in_out(module) else weight.T
