"""Run by `test_evaluate.py` in its own process, with simulated devices."""

import pathlib
import shutil
import sys

import jax

from specialize_jax.apps import evaluate
from specialize_jax.schemas import results

LABEL = "zero_shot_chain_of_thought"


def answers(model_dir: pathlib.Path, data: str, **settings: int) -> list[list[str]]:
    """Returns what the last checkpoint says to each question."""
    assert evaluate.run(
        model_dir=str(model_dir),
        data=data,
        sets=("gsm8k",),
        formats=(LABEL,),
        batch_size=3,
        input_length=256,
        max_decode_length=6,
        **settings,
    )
    [path] = (model_dir / "eval" / "4").glob("samples_*.jsonl")
    return [line["resps"] for line in results.read_samples(path)]


def main() -> None:
    """Asserts that a student on a mesh answers as on one device."""
    written, data, out = map(pathlib.Path, sys.argv[1:])
    found = []
    for number, settings in enumerate(({}, {"fsdp_partitions": 2, "model_partitions": 2})):
        folder = shutil.copytree(written, out / str(number))
        found.append(answers(folder, str(data), **settings))
    with jax.default_device(jax.devices()[0]):
        evaluate.student.jax.device_count = lambda: 1  # as if it were alone
        found.append(answers(shutil.copytree(written, out / "alone"), str(data)))
    assert found[0] == found[1] == found[2] and len({str(each) for each in found[0]}) > 1
    print("equal")


if __name__ == "__main__":
    main()
