"""In-context questions to a GPT-2: exemplars that are read once against exemplars read every time.

    python benchmarks/exemplars.py --size gpt2_small

Every question has the same exemplars before it (`--shared` tokens) and `--own` tokens of its own;
answers are greedy, all of `--out` tokens, from random weights in float32. The two take turns, and
must give the same tokens. Compilation is not counted; reading the exemplars once is.
"""

import argparse
import os
from typing import Any

import jax
import numpy as np
import turns

from specialize_jax import models
from specialize_jax.apps import student_slots
from specialize_jax.decoding import slots
from specialize_jax.decoding.greedy import most_likely

_NO_TOKEN = -1


def main() -> None:
    """Prints seconds of each run and the ratio of medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", default="gpt2_small", help="of models.gpt2.SIZES")
    parser.add_argument("--rows", type=int, default=16, help="that are decoded at a time")
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--shared", type=int, default=448, help="tokens, a multiple of 64")
    parser.add_argument("--own", type=int, default=64, help="tokens of a question")
    parser.add_argument("--out", type=int, default=64, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each")
    flags = parser.parse_args()
    model = models.build(flags.size, dropout_rate=0.0)
    params = jax.jit(model.init)(jax.random.key(0))
    draw = np.random.default_rng(0)
    exemplars = draw.integers(1, 50000, flags.shared).tolist()
    inputs = [
        exemplars + own for own in draw.integers(1, 50000, (flags.questions, flags.own)).tolist()
    ]
    print(f"{flags}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    engine = _engine(model, flags)

    def once() -> list[list[int]]:
        return _answers(engine, *student_slots.shared(model, params, inputs, slots=flags.rows))

    def every_time() -> list[list[int]]:
        return _answers(engine, student_slots.prepared(model, params), inputs)

    runs = {"read once": once, "read every time": every_time}
    answers = {name: run() for name, run in runs.items()}
    assert answers["read once"] == answers["read every time"]
    times = turns.seconds(runs, flags.repeats)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    for name, seconds in medians.items():
        print(
            f"{name:16s} {seconds:8.2f} s, {flags.questions / seconds:6.2f} questions/s, "
            f"{seconds / medians['read once']:.2f}x"
        )


def _engine(model: models.Model, flags: argparse.Namespace) -> slots.Engine:
    return slots.Engine(
        student_slots.functions(model),
        lambda logits, *_: most_likely(logits),
        slots=flags.rows,
        max_length=flags.out,
        eos_id=_NO_TOKEN,
        widths=student_slots.widths(flags.shared + flags.own),
        pad_id=model.pad_id,
    )


def _answers(engine: slots.Engine, params: Any, inputs: list[list[int]]) -> list[list[int]]:
    asked = [slots.Question(tokens, place) for place, tokens in enumerate(inputs)]
    return [answer.tokens for answer in sorted(engine.run(params, asked))]


if __name__ == "__main__":
    main()
