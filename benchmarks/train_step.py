"""One training step of T5 1.1 small: ours against Hugging Face's PyTorch T5, same shapes.

    python benchmarks/train_step.py

Forward, backward and AdamW on batch 8, 256 tokens in, 128 out, float32, without dropout. The
baseline runs where torch and transformers are installed (they are no dependency of ours), in turn
with ours, so that a busy machine slows both. Compilation is not counted.
"""

import argparse
import functools
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

from specialize_jax import losses, models
from specialize_jax.training import step, train_state

BATCH, INPUTS, TARGETS = 8, 256, 128


def main() -> None:
    """Prints medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="t5_1_1_small", help="a name of models.t5.SIZES")
    parser.add_argument("--repeats", type=int, default=7, help="steps of each; medians are printed")
    flags = parser.parse_args()
    print(
        f"python {platform.python_version()}, jax {jax.__version__}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; {flags.size}, batch {BATCH}, {INPUTS} in, {TARGETS} out"
    )
    runs = {"ours": _ours(flags.size)}
    if all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        runs["Hugging Face PyTorch"] = _torch(flags.size)
    else:
        print("Hugging Face PyTorch: not run, torch and transformers are not installed")
    for run in runs.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(flags.repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, seconds in medians.items():
        print(f"{name:22s} {seconds:7.2f} s a step, ours is {seconds / medians['ours']:.2f}x")


def _ours(size: str) -> Callable[[], None]:
    model = models.build(size, dropout_rate=0.0)
    rng = np.random.default_rng(0)
    words = functools.partial(rng.integers, 2, 32000, dtype=np.int32)
    batch = {
        "encoder_input_tokens": words((BATCH, INPUTS)),
        "decoder_input_tokens": words((BATCH, TARGETS)),
        "decoder_target_tokens": words((BATCH, TARGETS)),
    }

    def loss_fn(params: Any, batch: Any, rng: Any) -> Any:
        hidden = model.hidden(params, batch)
        targets = batch["decoder_target_tokens"].reshape(-1)
        return losses.chunked(
            hidden.reshape(-1, hidden.shape[-1]),
            model.unembed(params),
            targets,
            None,
            jax.numpy.ones(targets.shape),
            objective="match_sample",
            normalizer=1.0,
        )

    tx = optax.adamw(1e-4)
    params = jax.jit(model.init)(jax.random.key(0))
    held = [train_state.create(params, tx, seed=0)]
    update = step.make_train_step(loss_fn, tx)

    def run() -> None:
        held[0], metrics = update(held[0], batch)
        jax.block_until_ready((held[0], metrics))

    return run


def _torch(size: str) -> Callable[[], None]:
    import torch
    import transformers

    config = models.t5.SIZES[size]
    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=config.vocab_size,
            d_model=config.d_model,
            d_kv=config.d_kv,
            d_ff=config.d_ff,
            num_layers=config.num_encoder_layers,
            num_decoder_layers=config.num_decoder_layers,
            num_heads=config.num_heads,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            dropout_rate=0.0,
            use_cache=False,
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    inputs = torch.randint(2, 32000, (BATCH, INPUTS))
    labels = torch.randint(2, 32000, (BATCH, TARGETS))

    def run() -> None:
        optimizer.zero_grad()
        model(input_ids=inputs, labels=labels).loss.backward()
        optimizer.step()

    return run


if __name__ == "__main__":
    main()
