"""Makes the golden `gpt2_tiny_hf`; needs torch.

Run once, in an environment of its own, never by the tests:

    pip install torch==2.13.0 transformers==5.23.0
    python tests/golden/make_gpt2_golden.py

The folder holds what transformers wrote (config.json, model.safetensors), `expected.npz`:
decoder_input_tokens [B, S], logits [B, S, V] of transformers, prompts [B, Tin], padded on the left,
and `generated` [B, 12], its greedy continuation; and `gradients.npz`: what torch's autograd gives
for the mean cross-entropy of each token's successor, by names of theirs.

Weights are random and large, so that generation wanders; of the prompts one is not padded, one ends
early.
"""

import pathlib

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

FOLDER = pathlib.Path(__file__).resolve().parent / "gpt2_tiny_hf"
GENERATED = 12
END = 63
GRADIENTS = (
    "transformer.wte.weight",
    "transformer.wpe.weight",
    "transformer.h.0.ln_1.weight",
    "transformer.h.0.attn.c_attn.weight",
    "transformer.h.1.attn.c_attn.bias",
    "transformer.h.1.attn.c_proj.weight",
    "transformer.h.1.mlp.c_fc.bias",
    "transformer.ln_f.bias",
)


def make(seed: int) -> None:
    """Writes the golden."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64, n_positions=32, n_embd=24, n_layer=2, n_head=3, initializer_range=0.3,
        bos_token_id=END, eos_token_id=END,
    )  # fmt: skip
    model = GPT2LMHeadModel(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:  # norms and biases, which start at one and zero: away from it
            parameter.data += torch.empty_like(parameter).uniform_(-0.5, 0.5)
    model.save_pretrained(FOLDER)
    (FOLDER / "generation_config.json").unlink()
    expected = _expected(model)
    np.savez_compressed(FOLDER / "expected.npz", **expected)
    tokens = torch.from_numpy(expected["decoder_input_tokens"]).long()
    logits = model(input_ids=tokens).logits[:, :-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if n in GRADIENTS}
    np.savez_compressed(FOLDER / "gradients.npz", **gradients)


@torch.no_grad()
def _expected(model: GPT2LMHeadModel) -> dict[str, np.ndarray]:
    tokens = torch.randint(0, END, (3, 20))
    prompts = torch.randint(0, END, (3, 9))
    prompts[1, :3] = END
    prompts[2, :8] = END
    mask = torch.ones_like(prompts)
    mask[1, :3] = 0
    mask[2, :8] = 0
    generated = model.generate(
        input_ids=prompts,
        attention_mask=mask,
        max_new_tokens=GENERATED,
        do_sample=False,
        use_cache=False,
        pad_token_id=END,
    )[:, prompts.shape[1] :]
    missing = GENERATED - generated.shape[1]
    return {
        "decoder_input_tokens": tokens.int().numpy(),
        "logits": model(input_ids=tokens).logits.numpy(),
        "prompts": prompts.int().numpy(),
        "generated": torch.nn.functional.pad(generated, (0, missing), value=END).int().numpy(),
    }


if __name__ == "__main__":
    make(seed=16)
