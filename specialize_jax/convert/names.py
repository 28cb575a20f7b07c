"""Which parameter of ours is which in a Hugging Face T5 folder: one table, read both ways.

Theirs store a projection as [out, in] and one tensor a layer; ours are [in, out] and stacked.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from specialize_jax.models.t5 import T5Config


@dataclass(frozen=True)
class Row:
    """One parameter of ours.

    Attributes:
      ours: path in our tree, joined by "/".
      theirs: name of their tensors; `{}` stands for the layer where ours is stacked.
      transposed: their tensor is the transpose of ours (of a layer of ours).
      layers: how many of their tensors ours stacks; None where it is one tensor.
    """

    ours: str
    theirs: str
    transposed: bool = False
    layers: int | None = None

    def tensors(self) -> list[str]:
        """Names of their tensors, in the order of the stack."""
        if self.layers is None:
            return [self.theirs]
        return [self.theirs.format(layer) for layer in range(self.layers)]


_PROJECTIONS = {"query": "q", "key": "k", "value": "v", "out": "o"}
# Sublayers in their order: our name, our norm's name, their name.
_SUBLAYERS = {
    "encoder": (
        ("attention", "pre_attention_layer_norm", "SelfAttention"),
        ("mlp", "pre_mlp_layer_norm", "DenseReluDense"),
    ),
    "decoder": (
        ("self_attention", "pre_self_attention_layer_norm", "SelfAttention"),
        ("encoder_decoder_attention", "pre_cross_attention_layer_norm", "EncDecAttention"),
        ("mlp", "pre_mlp_layer_norm", "DenseReluDense"),
    ),
}

IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
"""Stands in old files and is read by nobody."""
EMBEDDING = "shared.weight"
HEAD = "lm_head.weight"
EMBEDDING_COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
"""Names under which some files repeat the embedding."""


def table(config: T5Config) -> list[Row]:
    """Every parameter of a T5 of this shape, once."""
    rows = [Row("token_embedder/embedding", EMBEDDING)]
    depths = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    for stack, depth in depths.items():
        rows += _stack(stack, depth, gated=config.activation == "gated-gelu")
    if not config.tied_embeddings:
        rows.append(Row("logits_dense/kernel", HEAD, transposed=True))
    return rows


def _stack(stack: str, depth: int, *, gated: bool) -> Iterator[Row]:
    bias = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    yield Row(f"{stack}/relpos_bias/rel_embedding", bias, transposed=True)
    yield Row(f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight")
    matrices = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    for position, (part, norm, theirs) in enumerate(_SUBLAYERS[stack]):
        block = f"{stack}.block.{{}}.layer.{position}"
        yield Row(f"{stack}/layers/{norm}/scale", f"{block}.layer_norm.weight", layers=depth)
        names = {name: name for name in matrices} if part == "mlp" else _PROJECTIONS
        for our_name, their_name in names.items():
            ours = f"{stack}/layers/{part}/{our_name}/kernel"
            yield Row(ours, f"{block}.{theirs}.{their_name}.weight", transposed=True, layers=depth)
