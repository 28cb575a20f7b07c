"""`specialize-jax evaluate`: checkpoints answer the evaluation sets and are scored."""

import argparse
import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from specialize_jax import answers, models, tokenizers
from specialize_jax.apps import (
    answering,
    data_dir,
    evaluation_sets,
    gin_setup,
    processes,
    progress,
    provenance,
)
from specialize_jax.data import formats as formats_lib
from specialize_jax.evaluation import readers, runner, scoring
from specialize_jax.schemas import Format, folders, results
from specialize_jax.training import checkpoints

EPILOG = """\
example:
  specialize-jax evaluate --gin_file=experiments/codex_gsm8k_cpu.gin \\
      --gin.MODEL_DIR="'out/line/model'" --data_dir ../shared/data
An interrupted evaluation goes on where it was."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    data_dir.add_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Evaluates as the gin files say."""
    processes.check_alone("evaluate")
    given = {"data": args.data_dir} if args.data_dir else {}
    gin_setup.configured(args, run, **given)()
    return 0


def run(
    *,
    model_dir: str,
    data: str | None,
    sets: Sequence[str],
    formats: Sequence[str],
    sets_module: str | None = None,
    exemplars: str | None = None,
    num_questions: int | None = None,
    steps: str | Sequence[int] = "last",
    batch_size: int = 64,
    input_length: int = 1024,
    max_decode_length: int = 256,
    seed: int = 0,
    allow_contamination: bool = False,
) -> None:
    """Scores checkpoints.

    Args:
      model_dir: a folder that `train` wrote; results go to `model_dir`/eval/<step>.
      data: folder of public data sets.
      sets: names of `evaluation.readers.SETS`.
      formats: prompts to ask in, labels of `schemas.Format`.
      sets_module: imported first; it registers sets of its own.
      exemplars: a prompt file whose examples stand before the question, for in-context formats;
        None for those that each set brings along.
      num_questions: a seeded number of each set; None for all.
      steps: "last", "all", or a list of steps.
      batch_size: questions decoded at a time.
      input_length: largest encoder length.
      max_decode_length: tokens of an answer at most.
      seed: of the choice of questions.
      allow_contamination: whether sets are scored whose questions were trained on.

    Raises:
      ValueError: an unknown set, format or step, a prompt that is too long, or a question that was
        trained on.
    """
    if not sets or not formats:
        raise ValueError(
            f"expected at least one of EVAL_SETS and EVAL_FORMATS, got {sets}, {formats}"
        )
    gin_setup.import_module("EVAL_SETS_MODULE", sets_module)
    folder = epath.Path(model_dir)
    config = checkpoints.read_config(folder / "checkpoints")
    try:
        model = models.rebuild(config["family"], config["name"], config["model"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"'{folder / 'checkpoints' / 'config.json'}' does not describe a student: {error!r}"
        ) from error
    if config.get("student_tokenizer") is None:
        raise ValueError(f"'{folder}' has no tokenizer; convert it again with --tokenizer FILE")
    tokenizer = tokenizers.load(folder / config["student_tokenizer"]["file"])
    decode = answering.greedy_decoder(model, tokenizer.eos_id, max_decode_length)
    answerer = answering.Answerer(model, tokenizer, decode, batch_size, input_length)
    questions = {name: readers.read(name, data) for name in sets}
    trained_on = evaluation_sets.check(
        evaluation_sets.record_of(folder), questions, folder, allowed=allow_contamination
    )
    asked = {
        (name, label): build_prompt(label, name, exemplars) for label in formats for name in sets
    }
    chosen = {
        name: all_of_it if num_questions is None else readers.sample(all_of_it, num_questions, seed)
        for name, all_of_it in questions.items()
    }
    for (name, label), prompt in asked.items():
        rendered = [prompt.render(row) for row in chosen[name]]
        check_lengths(rendered, answerer, f"{name}_{label}")
    like = jax.eval_shape(model.init, jax.random.key(0))
    for step in choose_steps(folder / "checkpoints", steps):
        out = folder / "eval" / str(step)
        settings = {
            "model": config["name"],
            "model_args": config["model"],
            "checkpoint": str(folder),
            "step": step,
            "batch_size": batch_size,
            "limit": num_questions,
            "random_seed": seed,
            "gen_kwargs": {"max_gen_toks": max_decode_length, "do_sample": False},
        }
        check_same_checkpoint(out, folder / "checkpoints" / str(step))
        params = checkpoints.restore_params(folder / "checkpoints", step, like)
        tasks = {}
        for (name, label), prompt in asked.items():
            task, rows = f"{name}_{label}", chosen[name]
            predictions = runner.run(
                rows,
                prompt.render,
                functools.partial(answerer.answer, params),
                modes=answers.modes_of(*{row.kind for row in rows}),
                batch_size=batch_size,
                progress=progress.counter(f"step {step}: {task}", len(rows)),
                journal=runner.journal_path(out, task),
                generation=settings["gen_kwargs"],
            )
            tasks[task] = runner.Task(
                predictions,
                original=len(questions[name]),
                n_shot=len(prompt.exemplars),
                config={
                    "dataset": name,
                    "role": readers.SETS[name].role,
                    "format": label,
                    "exemplars": exemplars,
                    "contaminated": count_in(rows, trained_on, name),
                },
            )
        path = runner.save(out, tasks, config=settings, git_hash=provenance.git_commit())
        provenance.write(out, "evaluate", gin=True)
        print_results(step, results.read_results(path))
        print(f"written: {path}")


def count_in(
    rows: Sequence[readers.Question], trained_on: evaluation_sets.Found | None, name: str
) -> int | None:
    """Returns how many rows of a set were trained on; None where that is not known."""
    return None if trained_on is None else len({*rows} & {*trained_on[name]})


def check_lengths(prompts: Sequence[str], answerer: answering.Answerer, task: str) -> None:
    """Checks that all prompts of a task fit the encoder, before anything is decoded.

    Raises:
      ValueError: one does not; the longest is shown.
    """
    lengths = [len(answerer.encode(prompt)) for prompt in prompts]
    if (longest := max(lengths, default=0)) > answerer.input_length:
        prompt = prompts[lengths.index(longest)]
        raise ValueError(
            f"{task}: a prompt of {longest} tokens, EVAL_INPUT_LENGTH allows "
            f"{answerer.input_length}: …{prompt[-80:]!r}"
        )


def choose_steps(folder: epath.Path, steps: str | Sequence[int]) -> list[int]:
    """Returns the checkpoints to score.

    Raises:
      ValueError: there is none, or not the one that was asked for.
    """
    found = checkpoints.all_steps(folder)
    if not found:
        raise ValueError(f"no checkpoints in '{folder}'")
    if isinstance(steps, str):
        if steps not in ("last", "all"):
            raise ValueError(f"EVAL_CHECKPOINTS: expected 'last', 'all' or a list, got '{steps}'")
        return found if steps == "all" else found[-1:]
    if missing := sorted(set(steps) - set(found)):
        raise ValueError(f"no checkpoints {missing} in '{folder}'; choices: {found}")
    return sorted(steps)


def check_same_checkpoint(out: epath.Path, checkpoint: epath.Path) -> None:
    """Marks an evaluation folder with its checkpoint, so that no other one's answers are reused.

    Raises:
      ValueError: the folder holds answers of another checkpoint of the same step.
    """
    # Orbax notes there when the checkpoint was written.
    mark = folders.sha256(checkpoint / "_CHECKPOINT_METADATA")
    path = out / "checkpoint.json"
    if path.exists():
        if json.loads(path.read_text()).get("sha256") != mark:
            raise ValueError(
                f"'{out}' holds answers of another checkpoint than '{checkpoint}' is now; "
                "remove that folder, or move it away"
            )
        return
    folders.make_folder(out)
    folders.write_json(path, {"checkpoint": str(checkpoint), "sha256": mark})


class Prompt(NamedTuple):
    """How a question is put.

    Attributes:
      format: of the prompt.
      exemplars: what stands before the question; none in the zero-shot formats.
    """

    format: Format
    exemplars: Sequence[formats_lib.Exemplar]

    def render(self, question: readers.Question) -> str:
        """Returns the prompt of a question."""
        return formats_lib.render_inputs(self.format, question.question, self.exemplars)


def build_prompt(label: str, name: str, exemplars: str | None) -> Prompt:
    """Returns how the questions of a set are put in a format.

    Raises:
      ValueError: an unknown format, or an in-context one without exemplars.
    """
    fmt = formats_lib.parse(label)
    if not fmt.is_in_context:
        return Prompt(fmt, ())
    own = readers.SETS[name].prompt
    if exemplars is not None:
        text, where = epath.Path(exemplars).read_text(), exemplars
    elif own is not None:
        text, where = own(), f"exemplars of '{name}'"
    else:
        raise ValueError(
            f"format '{label}' of set '{name}' needs EVAL_EXEMPLARS, for example "
            "cot_prompts/prompt_simple_4_cases.txt of the data folder"
        )
    return Prompt(fmt, formats_lib.read_exemplars(text, where))


def print_results(step: int, value: dict[str, Any]) -> None:
    """Prints a table: task, questions, accuracy and its 95% interval under each mode."""
    modes = sorted(
        {key.split(",")[1] for row in value["results"].values() for key in row if "," in key}
    )
    print(f"step {step}  {'task':<44}{'n':>6}" + "".join(f"{mode:>25}" for mode in modes))
    for task, row in value["results"].items():
        n = value["n-samples"][task]["effective"]
        shown = ""
        for mode in modes:
            if (accuracy := row.get(f"exact_match,{mode}")) is None:
                shown += f"{'-':>25}"  # this mode reads no answers of this kind
                continue
            low, high = scoring.wilson(round(accuracy * n), n)
            shown += f"{accuracy:>9.2%} [{low:6.2%},{high:6.2%}]"
        print(f"{'':9}{task:<44}{n:>6}{shown}")
