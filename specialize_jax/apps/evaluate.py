"""`specialize-jax evaluate`: checkpoints answer the evaluation sets and are scored."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from specialize_jax import decoding
from specialize_jax.apps import (
    answering,
    data_dir,
    evaluation_prompts,
    evaluation_sets,
    evaluation_steps,
    examination,
    gin_setup,
    processes,
    select,
    student,
)
from specialize_jax.decoding import calculating
from specialize_jax.evaluation import readers, runner, selection

EPILOG = """\
example:
  specialize-jax evaluate --gin_file=experiments/codex_gsm8k_cpu.gin \\
      --gin.MODEL_DIR="'out/line/model'" --data_dir ../shared/data
An interrupted evaluation goes on where it was. With EVAL_CHECKPOINTS = 'new' it scores the
checkpoints of a run that is training, one after the other as they come."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    data_dir.add_argument(parser)
    data_dir.add_tfds_argument(parser)


def main(args: argparse.Namespace) -> int:
    """Evaluates as the gin files say; what was asked for and could not be scored is a failure."""
    processes.check_alone("evaluate")
    data_dir.use_tfds(args.tfds_data_dir)
    given = {"data": args.data_dir} if args.data_dir else {}
    return 0 if gin_setup.configured(args, run, **given)() else 1


def run(
    *,
    model_dir: str,
    data: str | None,
    sets: Sequence[str],
    formats: Sequence[str],
    sets_module: str | None = None,
    exemplars: str | None = None,
    prompt_mode: str = "corrected",
    num_questions: int | None = None,
    steps: str | Sequence[int] = "last",
    wait_seconds: float = 3600.0,
    batch_size: int = 64,
    input_length: int = 1024,
    max_decode_length: int = 256,
    samples: int = 1,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    maj_k: Sequence[int] | None = None,
    num_beams: int = 1,
    calculator: str = "none",
    fsdp_partitions: int = 1,
    model_partitions: int = 1,
    seed: int = 0,
    allow_contamination: bool = False,
    select_by: str | Mapping[str, float] | None = None,
) -> bool:
    """Scores checkpoints.

    Args:
      model_dir: a folder that `train` or `convert` wrote; results go to `model_dir`/eval/<step>.
      data: folder of public data sets.
      sets: names of `evaluation.readers.SETS` or `GROUPS`.
      formats: prompts to ask in, labels of `schemas.Format`.
      sets_module: imported first; it registers sets of its own.
      exemplars: a prompt file whose examples stand before the question, for in-context formats;
        None for those that each set brings along.
      prompt_mode: one of `readers.PROMPT_MODES`, for sets whose in-context prompts have a form
        of their own.
      num_questions: a seeded number of each set; None for all.
      steps: "last" (or t5x's "latest"), "all", a list of steps, or "new": all, then those that a
        run goes on to write, until it has ended.
      wait_seconds: how long "new" waits for a checkpoint.
      batch_size: rows decoded at a time, rounded up to what the devices divide.
      input_length: tokens of a prompt at most; longer ones are not asked and count as wrong.
      max_decode_length: tokens of an answer at most.
      samples: answers to a question.
      temperature: of sampling; 0 takes the most likely token.
      top_k: how many of the most likely tokens may be drawn; None for all.
      top_p: share of the probability that may be drawn.
      maj_k: of how many samples each the majority is scored; None for all of them, where there are
        several.
      num_beams: above 1 a beam search.
      calculator: one of `decoding.calculating.KINDS`: what computes while an answer is written, or
        "after" it.
      fsdp_partitions: parts that parameters are split into, where there are several devices.
      model_partitions: parts that each matrix product is split into.
      seed: of the choice of questions, and of sampling.
      allow_contamination: whether sets are scored whose questions were trained on.
      select_by: by what the best of the evaluated checkpoints is chosen at the end: a role of
        `evaluation.selection.BY`, or weights of sets and roles; None for no choice.

    Returns:
      Whether all that was asked for was scored. A checkpoint that vanishes is skipped: with "all"
      and "new" that is expected where a run keeps only some. It is a failure where the list names
      it, or where nothing at all was scored, or where "new" waited in vain.

    Raises:
      ValueError: an unknown set, format or step, settings that exclude each other, a set whose
        prompts are all too long, or a question that was trained on.
    """
    check_choices(sets, formats, steps)
    gin_setup.import_module("EVAL_SETS_MODULE", sets_module)
    rule = selection_rule(select_by)
    try:
        settings = answering.Settings(
            max_length=max_decode_length,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            samples=samples,
            num_beams=num_beams,
            seed=seed,
            calculator=calculating.while_decoding(calculator),
        )
    except ValueError as error:
        raise ValueError(f"EVAL_SAMPLES, EVAL_TEMPERATURE and their like: {error}") from error
    votes = voting(samples, maj_k)
    sets, folder = readers.expand(sets), epath.Path(model_dir)
    try:
        if steps == evaluation_steps.NEW:
            evaluation_steps.wait_for_run(folder, wait_seconds)
        asked = student.read(folder, fsdp=fsdp_partitions, model=model_partitions)
        answerer = asked.answerer(settings, batch_size, input_length)
        questions = {name: readers.read(name, data) for name in sets}
        trained_on = evaluation_sets.check(
            evaluation_sets.record_of(folder), questions, folder, allowed=allow_contamination
        )
        sampling = evaluation_prompts.Sampling(num_questions, seed)
        exam = examination.Exam(
            asked,
            answerer,
            [
                evaluation_prompts.ask(
                    name,
                    label,
                    questions[name],
                    evaluation_prompts.build_prompt(label, name, exemplars, data, prompt_mode),
                    sampling,
                    length=answerer.length,
                    limit=answerer.input_length,
                )
                for label in formats
                for name in sets
            ],
            votes,
            {"limit": num_questions, "random_seed": seed},
            {"exemplars": exemplars, "prompt_mode": prompt_mode, "calculator": calculator},
            trained_on,
        )
        scored = [exam.sit(step) for step in evaluation_steps.of(folder, steps, wait_seconds)]
    except evaluation_steps.WaitedError as error:
        print(error)
        return False
    if rule is not None and any(scored):
        select.run(model_dir, calculator=calculator, **rule)
    return any(scored) and (isinstance(steps, str) or all(scored))


def check_choices(sets: Sequence[str], formats: Sequence[str], steps: str | Sequence[int]) -> None:
    """Checks what can be checked before anything is read.

    Raises:
      ValueError: nothing is asked, or a word is unknown.
    """
    if not sets or not formats:
        raise ValueError(
            f"expected at least one of EVAL_SETS and EVAL_FORMATS, got {sets}, {formats}"
        )
    evaluation_steps.check(steps)


def selection_rule(select_by: str | Mapping[str, float] | None) -> dict[str, Any] | None:
    """Returns the arguments of `select.run` that say by what to choose; None for no choice.

    Raises:
      ValueError: there is no such rule, or no such set or role.
    """
    if select_by is None:
        return None
    if isinstance(select_by, Mapping) and select_by:
        if unknown := sorted(set(select_by) - {*readers.SETS, *readers.ROLES}):
            raise ValueError(
                "EVAL_SELECT_BY: expected names of sets and of roles "
                f"({', '.join(readers.ROLES)}), got {', '.join(map(repr, unknown))}"
            )
        return {"by": selection.WEIGHTED, "weights": select_by}
    if select_by not in selection.BY or select_by == selection.WEIGHTED:
        roles = ", ".join(by for by in selection.BY if by != selection.WEIGHTED)
        raise ValueError(
            f"EVAL_SELECT_BY: expected one of {roles}, or weights as {{'svamp': 2, 'generic': 1}}, "
            f"got {select_by!r}"
        )
    return {"by": select_by}


def voting(samples: int, maj_k: Sequence[int] | None) -> runner.Voting | None:
    """Returns how samples vote; None where they do not.

    Raises:
      ValueError: more are to vote than there are.
    """
    if maj_k is None:
        maj_k = (samples,) if samples > 1 else ()
    if any(not 1 <= k <= samples for k in maj_k):
        raise ValueError(
            f"EVAL_MAJ_K: expected numbers from 1 to EVAL_SAMPLES={samples}, got {maj_k}"
        )
    return runner.Voting(decoding.majority_vote, tuple(sorted(set(maj_k)))) if maj_k else None
