"""Makes the goldens `t5_tiny_hf` (T5 1.1, Flan-T5), `t5_tiny_tied_hf` (T5 1.0) and `mt5_tiny_hf`.

Needs torch.

Run once, in an environment of its own, never by the tests:

    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/make_t5_golden.py

Each folder holds what transformers wrote (config.json, model.safetensors), `expected.npz`:
encoder_input_tokens [B, Tin], decoder_input_tokens [B, S], logits [B, S, V] of transformers, and
`generated` [B, 16], its greedy decoding without the start token; and `gradients.npz`: what torch's
autograd gives for the mean cross-entropy of each decoder token's successor, by names of theirs.

Weights are random; the seed of the first is one with which generation wanders and one row of two
ends early. The input is longer than the last bucket of the relative bias.
"""

import json
import pathlib

import numpy as np
import torch
from transformers import (
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

FOLDER = pathlib.Path(__file__).resolve().parent
GENERATED = 16
SIZES = {
    "t5_tiny_hf": dict(
        vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=3,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    ),
    "t5_tiny_tied_hf": dict(
        vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_decoder_layers=2, num_heads=2,
        feed_forward_proj="relu", tie_word_embeddings=True,
    ),
    "mt5_tiny_hf": dict(
        vocab_size=32, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=2,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False,
    ),
}  # fmt: skip
GRADIENTS = (
    "shared.weight",
    "lm_head.weight",
    "encoder.block.0.layer.0.SelfAttention.q.weight",
    "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "encoder.block.0.layer.1.layer_norm.weight",
    "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    "decoder.block.0.layer.1.EncDecAttention.k.weight",
    "decoder.block.0.layer.2.DenseReluDense.wo.weight",
)


def make(name: str, seed: int) -> None:
    """Writes one golden."""
    size = SIZES[name]
    torch.manual_seed(seed)
    if name.startswith("mt5"):
        config = MT5Config(**size)
        model = MT5ForConditionalGeneration(config).eval()
    else:
        config = T5Config(**size, decoder_start_token_id=0)
        model = T5ForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms, which start at one: away from it, or they test nothing
            parameter.data.uniform_(0.5, 1.5)
    if not size["tie_word_embeddings"]:  # transformers 5 ties every T5 at first
        head = torch.randn(config.vocab_size, config.d_model) * 0.3
        model.lm_head.weight = torch.nn.Parameter(head)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "generation_config.json").unlink()
    if not name.startswith("mt5"):  # left as transformers 5 writes it: tied, though it is not
        _publish(FOLDER / name / "config.json", tied=size["tie_word_embeddings"])
    expected = _expected(model)
    np.savez_compressed(FOLDER / name / "expected.npz", **expected)
    np.savez_compressed(FOLDER / name / "gradients.npz", **_gradients(model, expected))


def _publish(path: pathlib.Path, *, tied: bool) -> None:
    """Gives config.json the form that published checkpoints have."""
    raw = json.loads(path.read_text())
    raw.pop("scale_decoder_outputs")
    path.write_text(json.dumps(raw | {"tie_word_embeddings": tied}, indent=2) + "\n")


@torch.no_grad()
def _expected(model: T5ForConditionalGeneration) -> dict[str, np.ndarray]:
    vocab = model.config.vocab_size
    encoder = torch.randint(2, vocab, (2, 150))
    encoder[1, 90:] = 0
    decoder = torch.randint(2, vocab, (2, 24))
    decoder[:, 0] = 0
    mask = (encoder > 0).long()
    logits = model(input_ids=encoder, attention_mask=mask, decoder_input_ids=decoder).logits
    generated = model.generate(
        input_ids=encoder,
        attention_mask=mask,
        max_new_tokens=GENERATED,
        do_sample=False,
        use_cache=False,
    )[:, 1:]
    generated = torch.nn.functional.pad(generated, (0, GENERATED - generated.shape[1]))
    return {
        "encoder_input_tokens": encoder.int().numpy(),
        "decoder_input_tokens": decoder.int().numpy(),
        "logits": logits.numpy(),
        "generated": generated.int().numpy(),
    }


def _gradients(
    model: T5ForConditionalGeneration, expected: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    encoder = torch.from_numpy(expected["encoder_input_tokens"]).long()
    decoder = torch.from_numpy(expected["decoder_input_tokens"]).long()
    mask = (encoder > 0).long()
    logits = model(input_ids=encoder, attention_mask=mask, decoder_input_ids=decoder).logits
    successors = decoder[:, 1:].flatten()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), successors).backward()
    return {n: p.grad.numpy() for n, p in model.named_parameters() if n in GRADIENTS}


if __name__ == "__main__":
    make("t5_tiny_hf", seed=17)
    make("t5_tiny_tied_hf", seed=13)
    make("mt5_tiny_hf", seed=13)
