"""Greedy answers of T5 1.1: ours against Hugging Face's `generate` and CTranslate2, same weights.

    pip install -e '.[bench]'
    python benchmarks/decoding.py --sizes t5_1_1_small,t5_1_1_base --batches 1,8,64

256 tokens in, 64 out, of every row, float32, random weights written by `convert.save_hf`, which the
others read; all must give the same tokens. A baseline runs where it is installed (they are no
dependencies of ours), in turn with ours, so that a busy machine slows all. Compilation, reading and
converting are not counted.

    python benchmarks/decoding.py --suite --data ../shared/data
"""

import argparse
import importlib.metadata
import importlib.util
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from specialize_jax import convert, models
from specialize_jax.apps import answering
from specialize_jax.models import Model

INPUTS, OUTPUTS = 256, 64
_NO_TOKEN = -1

Run = Callable[[np.ndarray], np.ndarray]
"""Tokens [B, INPUTS] to tokens [B, OUTPUTS]."""


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="t5_1_1_small,t5_1_1_base", help="of models.t5.SIZES")
    parser.add_argument("--batches", default="1,8,64", help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are printed")
    flags = parser.parse_args()
    packages = ("jax", "torch", "transformers", "ctranslate2")
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    print(
        f"python {platform.python_version()}, {versions}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}; {INPUTS} tokens in, {OUTPUTS} out, float32"
    )
    for size in flags.sizes.split(","):
        with tempfile.TemporaryDirectory() as folder:
            _compare(size, [int(rows) for rows in flags.batches.split(",")], flags.repeats, folder)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _compare(size: str, batches: list[int], repeats: int, folder: str) -> None:
    """Prints a table: a line for each program and batch size."""
    model = models.build(size, dropout_rate=0.0)
    params = jax.jit(model.init)(jax.random.key(0))
    convert.save_hf(model.config, params, folder)
    runs = {"ours": _ours(model, params)} | dict(_baselines(folder, model.config.vocab_size))
    for rows in batches:
        inputs = np.random.default_rng(rows).integers(3, 32000, (rows, INPUTS), np.int32)
        answers = {name: run(inputs) for name, run in runs.items()}
        for name, found in answers.items():
            np.testing.assert_array_equal(found, answers["ours"], err_msg=name)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run(inputs)
                times[name].append(time.perf_counter() - start)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        for name, seconds in medians.items():
            print(
                f"{size:14s} batch {rows:3d} {name:24s} {seconds:8.3f} s "
                f"{rows * OUTPUTS / seconds:8.0f} tokens/s, ours is "
                f"{seconds / medians['ours']:.2f}x",
                flush=True,
            )


def _ours(model: Model, params: Any) -> Run:
    decode = answering.greedy_decoder(model, _NO_TOKEN, OUTPUTS)
    return lambda inputs: np.asarray(decode(params, inputs))


def _baselines(folder: str, vocab_size: int) -> Iterator[tuple[str, Run]]:
    """The other programs on the weights of a folder."""
    hugging_face = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
    if not hugging_face:
        print("Hugging Face: not run, torch and transformers are not installed")
        return
    yield "Hugging Face generate", _hugging_face(folder)
    if importlib.util.find_spec("ctranslate2"):
        yield "CTranslate2", _ctranslate2(folder, vocab_size)
    else:
        print("CTranslate2: not run, it is not installed")


def _hugging_face(folder: str) -> Run:
    import torch
    import transformers

    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    model.generation_config.eos_token_id = None  # nothing ends, and nothing is suppressed

    def run(inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            out = model.generate(
                torch.from_numpy(inputs).long(), max_new_tokens=OUTPUTS, do_sample=False
            )
        return out[:, 1:].numpy()

    return run


def _ctranslate2(folder: str, vocab_size: int) -> Run:
    import ctranslate2

    words = [f"t{token}" for token in range(vocab_size)]
    places = {word: token for token, word in enumerate(words)}
    _write_tokenizer(folder, places)
    out = pathlib.Path(folder) / "ctranslate2"
    ctranslate2.converters.TransformersConverter(folder).convert(str(out))
    translator = ctranslate2.Translator(str(out), compute_type="float32")

    def run(inputs: np.ndarray) -> np.ndarray:
        found = translator.translate_batch(
            [[words[token] for token in row] for row in inputs.tolist()],
            beam_size=1,
            max_decoding_length=OUTPUTS,
            min_decoding_length=OUTPUTS,  # the end of sequence is suppressed; no one writes it here
        )
        return np.array([[places[word] for word in one.hypotheses[0]] for one in found])

    return run


def _write_tokenizer(folder: str, places: dict[str, int]) -> None:
    """A tokenizer that names token `i` "ti"; the converter wants one."""
    import tokenizers
    import transformers

    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(places, unk_token="t2"))
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="t0", eos_token="t1", unk_token="t2"
    ).save_pretrained(folder)


if __name__ == "__main__":
    main()
