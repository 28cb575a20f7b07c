"""Greedy answers of T5 1.1: ours against Hugging Face's `generate` and CTranslate2, same weights.

    pip install -e '.[bench]'
    python benchmarks/decoding.py --sizes t5_1_1_small,t5_1_1_base --batches 1,8,64

256 tokens in, 64 out, of every row, float32, random weights written by `convert.save_hf`, which the
others read; all must give the same tokens. A baseline runs where it is installed (they are no
dependencies of ours), in turn with ours, so that a busy machine slows all. Compilation, reading and
converting are not counted.

    python benchmarks/decoding.py --suite --data ../shared/data

The questions of GSM8K's test part, MultiArith, ASDiv and SVAMP, zero-shot, end to end: slots that
are filled again against plain batches, which are sorted by length. Weights are random, so what ends
an answer is given: each is as long as a worked solution of GSM8K's test part, drawn with a seed.
Compilation is counted on neither side: the first pass over some questions is not timed.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import turns

from specialize_jax import convert, models, schemas, tokenizers
from specialize_jax.apps import answering, student_slots
from specialize_jax.data import formats
from specialize_jax.decoding import slots, stepwise
from specialize_jax.decoding.greedy import most_likely
from specialize_jax.evaluation import readers
from specialize_jax.models import Model

INPUTS, OUTPUTS = 256, 64
SUITE = ("gsm8k", "multiarith", "asdiv", "svamp")
LONGEST = 256
_NO_TOKEN = -1

Run = Callable[[np.ndarray], np.ndarray]
"""Tokens [B, INPUTS] to tokens [B, OUTPUTS]."""


def main() -> None:
    """Prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", default="t5_1_1_small,t5_1_1_base", help="of models.t5.SIZES")
    parser.add_argument("--batches", default="1,8,64", help="rows of a batch")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each; medians are printed")
    parser.add_argument("--suite", action="store_true", help="whole sets instead")
    parser.add_argument("--data", default="../shared/data", help="of --suite")
    parser.add_argument("--questions", type=int, help="of --suite: a seeded number; all by default")
    flags = parser.parse_args()
    if flags.suite:
        for rows in flags.batches.split(","):
            _suite(flags.sizes.split(",")[0], int(rows), flags.data, flags.questions)
        return
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
        bound = {name: functools.partial(run, inputs) for name, run in runs.items()}
        times = turns.seconds(bound, repeats)
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
    params = student_slots.prepared(model, params)  # once, as a checkpoint is loaded once
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


def _suite(size: str, rows: int, data: str, count: int | None) -> None:
    """Prints questions a second of slots and of plain batches, which give the same answers."""
    model = models.build(size, dropout_rate=0.0)
    params = jax.jit(model.init)(jax.random.key(0))
    tokenizer = tokenizers.load(pathlib.Path(data) / "tokenizer_t5" / "spiece.model")
    read = {name: readers.read(name, data) for name in SUITE}
    prompts = [
        formats.render_inputs(schemas.Format.ZERO_SHOT_CHAIN_OF_THOUGHT, question.question)
        for name in SUITE
        for question in read[name]
    ]
    inputs = [[*tokenizer.encode(prompt), tokenizer.eos_id] for prompt in prompts]
    with open(pathlib.Path(data) / "gsm8k" / "test.jsonl", encoding="utf-8") as lines:
        solutions = [json.loads(line)["answer"] for line in lines]
    draw = np.random.default_rng(0)
    lengths = [min(len(tokenizer.encode(text)) + 1, LONGEST) for text in solutions]
    ends = draw.choice(lengths, len(inputs)).astype(np.int32)
    chosen = draw.permutation(len(inputs))[:count]
    inputs, ends = [inputs[i] for i in chosen], ends[chosen]
    widest = max(map(len, inputs))
    print(
        f"{size}, {rows} rows, {len(inputs)} questions of {', '.join(SUITE)}: "
        f"{np.mean([len(one) for one in inputs]):.0f} tokens in on average, {widest} at most; "
        f"{ends.mean():.0f} out, {ends.max()} at most"
    )
    runs = {
        "slots": _slots(model, params, tokenizer, ends, rows, widest),
        "plain batches": _plain_batches(model, params, ends, rows, tokenizer.eos_id),
    }
    found = {}
    for name, run in runs.items():
        run(inputs, min(16 * rows, len(inputs)))  # so many that all widths occur
        start = time.perf_counter()
        found[name] = run(inputs, len(inputs))
        seconds = time.perf_counter() - start
        print(f"{name:14s} {seconds:8.1f} s, {len(inputs) / seconds:6.2f} questions/s", flush=True)
    first, second = found.values()
    same = sum(first[place] == second[place] for place in range(len(inputs)))
    print(f"the same answer to {same} of {len(inputs)}")


def _slots(model: Any, params: Any, tokenizer: Any, ends: Any, rows: int, widest: int) -> Any:
    def choose(logits: Any, numbers: Any, samples: Any, places: Any) -> Any:
        del samples
        over = places + 1 >= jax.numpy.asarray(ends)[numbers]
        return jax.numpy.where(over, tokenizer.eos_id, most_likely(_no_end(logits)))

    engine = student_slots.engine(
        model,
        tokenizer,
        rows=rows,
        samples=1,
        max_length=LONGEST,
        input_length=widest,
        choose=choose,
    )

    def run(inputs: list[list[int]], count: int) -> dict[int, list[int]]:
        places = _spread(inputs, count)
        asked = [slots.Question(inputs[place], place) for place in places]
        prepared = student_slots.prepared(model, params)
        return {places[one.place]: one.tokens for one in engine.run(prepared, asked)}

    return run


def _plain_batches(model: Any, params: Any, ends: Any, rows: int, eos_id: int) -> Any:
    @jax.jit
    def decode(params: Any, tokens: Any, ends: Any) -> Any:
        def choose(logits: Any, step: Any) -> Any:
            return jax.numpy.where(step + 1 >= ends, eos_id, most_likely(_no_end(logits)))

        return stepwise.decode(
            choose,
            functools.partial(model.decode_step, params),
            model.init_cache(params, tokens, LONGEST),
            batch_size=rows,
            max_length=LONGEST,
            eos_id=eos_id,
            start_tokens=model.start_tokens(tokens),
            pad_id=model.pad_id,
        )

    def run(inputs: list[list[int]], count: int) -> dict[int, list[int]]:
        found = {}
        places = sorted(_spread(inputs, count), key=lambda place: len(inputs[place]))
        for start in range(0, count, rows):
            batch = places[start : start + rows]
            width = -(-max(len(inputs[place]) for place in batch) // 64) * 64
            unused = rows - len(batch)
            tokens = models.pad_inputs(
                model, [*(inputs[place] for place in batch), *[[eos_id]] * unused], width
            )
            out, sizes = jax.device_get(
                decode(params, tokens, np.array([*ends[batch], *[1] * unused]))
            )
            for place, row, size in zip(batch, out, sizes, strict=False):
                found[place] = row[:size].tolist()
        return found

    return run


def _spread(inputs: list[list[int]], count: int) -> list[int]:
    """Places of `count` inputs, of all lengths, so that every shape is compiled."""
    in_order = sorted(range(len(inputs)), key=lambda place: len(inputs[place]))
    return [in_order[i] for i in np.linspace(0, len(inputs) - 1, count).astype(int)]


def _no_end(logits: Any) -> Any:
    return logits.at[:, 1].set(-jax.numpy.inf)


if __name__ == "__main__":
    main()
