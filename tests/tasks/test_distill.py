"""The seqio tasks and mixtures on the fixtures' aligned examples."""

import collections

import gin
import numpy as np
import pytest
import sentencepiece
import seqio

from specialize_jax.data import feature_converters, formats, mixing, packing
from specialize_jax.data.packing import Lengths
from specialize_jax.schemas import Format, Kind, SchemaError
from specialize_jax.tasks import distill, distill_settings
from tests.fixtures import world

ALIGNED = str(world.HERE / "aligned_examples")
LENGTHS = Lengths(inputs=512, targets=96)
NAME = "specialize_jax.tasks.distill_settings.corpus"


@pytest.fixture(autouse=True)
def settings():
    gin.clear_config()
    with gin.unlock_config():
        gin.bind_parameter(f"{NAME}.aligned_dirs", (ALIGNED,))
        gin.bind_parameter(f"{NAME}.validation", 2)
    yield
    gin.clear_config()


def read(name, split="train", *, seed=0, count=None, shuffle=False):
    provider = seqio.get_mixture_or_task(name)
    count = count or mixing.epoch_size(provider, split)
    return list(mixing.examples(provider, split, seed=seed, count=count, shuffle=shuffle))


def decode(ids):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(world.TOKENIZER))
    return processor.decode([int(i) for i in ids])


@pytest.mark.parametrize("fmt", list(Format))
def test_examples_of_every_format(fmt):
    corpus = distill_settings.corpus()
    examples = read(distill.task_name(fmt))
    assert len(examples) == len(corpus.rows["train"]) == 10
    for row, example in zip(corpus.rows["train"], examples, strict=True):
        assert example.format == fmt and example.inputs[-1] == example.targets[-1] == 1
        text = decode(example.inputs)
        assert row["question"] in text
        assert text.count("Q: ") == (1 + formats.NUM_EXEMPLARS if fmt.is_in_context else 1)
        assert text.count(row["question"]) == 1, "the question is its own exemplar"
        answer = decode(example.targets)
        assert answer.endswith(f"The answer is {row['gold_answer']}")
        if fmt.is_chain_of_thought:
            np.testing.assert_array_equal(example.targets, row["targets"])
            np.testing.assert_array_equal(example.soft.kind, row["soft"].kind)
            np.testing.assert_array_equal(example.soft.logprobs, row["soft"].logprobs)
            np.testing.assert_array_equal(example.soft.ids, row["soft"].ids)
        else:
            assert (example.soft.kind == Kind.ANSWER_ONLY).all()
            np.testing.assert_array_equal(example.soft.ids[:, 0], example.targets)


def test_some_rows_of_the_fixture_are_transferred():
    kinds = np.concatenate([e.soft.kind for e in read("distill_zero_shot_chain_of_thought")])
    assert {Kind.TRANSFERRED, Kind.ONE_HOT} == set(kinds.tolist())


def test_validation_questions_are_neither_trained_on_nor_shown_as_exemplars():
    corpus = distill_settings.corpus()
    held_out = {row["question"] for row in corpus.rows["validation"]}
    assert len(held_out) == 2
    for example in read("distill_in_context_chain_of_thought", count=40):
        text = decode(example.inputs)
        assert not any(question in text for question in held_out)
    [first, *_] = read("distill_in_context_chain_of_thought", "validation")
    assert any(question in decode(first.inputs) for question in held_out)


def test_validation_questions_may_stay_in_training():
    """As in 2301.12726's code; they are then exemplars too."""
    clean = distill_settings.corpus()
    with gin.unlock_config():
        gin.bind_parameter(f"{NAME}.train_on_validation", True)
    corpus = distill_settings.corpus()
    assert len(corpus.rows["validation"]) == len(clean.rows["validation"]) > 0
    assert len(corpus.rows["train"]) == len(clean.rows["train"]) + len(clean.rows["validation"])
    held_out = {row["question"] for row in corpus.rows["validation"]}
    assert held_out <= {row["question"] for row in corpus.rows["train"]}
    assert held_out <= {exemplar.question for exemplar in corpus.pool}
    assert held_out.isdisjoint(exemplar.question for exemplar in clean.pool)


def test_exemplars_and_order_are_functions_of_the_seed():
    name = "distill_four_formats"

    def prints(seed, count=30):
        return [e.inputs.tobytes() for e in read(name, seed=seed, count=count, shuffle=True)]

    # However many follow: the example of an index is a function of seed and index.
    assert prints(1) == prints(1) == prints(1, 45)[:30]
    assert prints(1) != prints(2)
    assert mixing.epoch_seed(0, 1) != mixing.epoch_seed(0, 0) != mixing.epoch_seed(1, 0)


@pytest.mark.parametrize("name", sorted(distill.RATES))
def test_mixtures_follow_their_stated_rates(name):
    rates = distill.RATES[name]
    count = 600
    seen = collections.Counter(e.format for e in read(name, count=count, seed=3, shuffle=True))
    assert set(seen) <= set(rates)
    for fmt, rate in rates.items():
        share = rate / sum(rates.values())
        # Four standard deviations of a binomial share.
        assert abs(seen[fmt] / count - share) < 4 * (share * (1 - share) / count) ** 0.5 + 1e-9


def test_epoch_size_shows_the_largest_task_once():
    assert mixing.epoch_size(seqio.get_mixture_or_task("distill_four_formats"), "train") == 25
    task = seqio.get_mixture_or_task("distill_zero_shot_answer_only")
    assert mixing.epoch_size(task, "train") == 10


@pytest.mark.parametrize("fmt", list(Format))
def test_unpacked_rows_equal_seqios_converter(fmt):
    """The packer with one example a row is seqio's own conversion, and so are the soft targets."""
    task = seqio.get_mixture_or_task(distill.task_name(fmt))
    converter = feature_converters.DistillationEncDecConverter()
    lengths = feature_converters.with_soft_lengths(LENGTHS._asdict())
    dataset = task.get_dataset(lengths, "train", shuffle=False, seed=0)
    converted = list(converter(dataset, lengths).as_numpy_iterator())
    examples = read(distill.task_name(fmt))
    assert len(converted) == len(examples) > 0
    for theirs, example in zip(converted, examples, strict=True):
        ours = packing.build_row([example], LENGTHS, 4)
        # seqio shifts the last token into the padding, where nothing is scored.
        inputs = theirs["decoder_input_tokens"] * theirs["decoder_loss_weights"]
        theirs = {**theirs, "decoder_input_tokens": inputs}
        for name, value in theirs.items():
            np.testing.assert_array_equal(value, ours[name], err_msg=name)


def test_the_converter_refuses_seqios_packer():
    with pytest.raises(ValueError, match="use `specialize-jax pack`"):
        feature_converters.DistillationEncDecConverter(pack=True)


def test_settings_are_checked():
    corpus = distill_settings.corpus
    with pytest.raises(SchemaError, match="expected at least one aligned folder"):
        corpus(aligned_dirs=())
    with pytest.raises(SchemaError, match="VALIDATION: expected fewer than the 12 questions"):
        corpus(validation=12)
    with pytest.raises(SchemaError, match="cannot read validation rows from 'no.npy'"):
        corpus(validation="no.npy")


def test_validation_rows_of_the_reference_repository(tmp_path):
    from specialize_jax.data.corpus import choose_validation

    np.save(tmp_path / "index.npy", np.array([9, 7455]))
    chosen = choose_validation(["gsm8k/train/9"], str(tmp_path / "index.npy"))
    assert chosen == {"gsm8k/train/9", "gsm8k/train/7455"}
    np.save(tmp_path / "wrong.npy", np.zeros((2, 2)))
    with pytest.raises(SchemaError, match="expected a list of row numbers, got float64"):
        choose_validation([], str(tmp_path / "wrong.npy"))


def test_the_choice_of_validation_questions_does_not_depend_on_the_others():
    from specialize_jax.data.corpus import choose_validation

    names = [f"q/{i}" for i in range(100)]
    few, more = (choose_validation(names[:n], 10) for n in (50, 100))
    assert few != more and len(few & more) >= 2
    # A question leaves only for another that comes before it.
    assert {name for name in more if name in set(names[:50])} <= few


@pytest.mark.parametrize("name", ["distill_four_formats", "distill_zero_shot_answer_only"])
def test_examples_keep_their_ids(name):
    rows = distill_settings.corpus().rows["train"]
    targets = {tuple(row["targets"]): row["example_id"] for row in rows}
    found = read(name, count=40, seed=3, shuffle=True)
    chains = [example for example in found if example.format.is_chain_of_thought]
    assert {example.id for example in found} <= set(targets.values())
    for example in chains:
        assert targets[tuple(example.targets)] == example.id


def test_a_mixture_with_a_task_that_has_no_ids_is_packed_without(monkeypatch):
    mixture = seqio.get_mixture_or_task("distill_in_context")
    expected = read("distill_in_context", count=20, seed=3, shuffle=True)
    task = seqio.get_mixture_or_task("distill_in_context_answer_only")
    whole = task.get_dataset

    def without(**options):
        def drop(row):
            return {name: value for name, value in row.items() if name != "example_id"}

        return whole(**options).map(drop)

    monkeypatch.setattr(task, "get_dataset", without)
    assert task in mixture.tasks
    found = read("distill_in_context", count=20, seed=3, shuffle=True)
    assert all(example.id is None for example in found)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours.targets, theirs.targets)
