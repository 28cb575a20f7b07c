"""The expansion of many texts by arrays is `expand` of every text, to the last bit."""

import functools
import itertools

import numpy as np
import pyarrow as pa
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import tokenizers
from specialize_jax.data.aligning.columns import Columns
from specialize_jax.schemas import Reason, records
from specialize_jax.tasks import miniworld
from specialize_jax.teacher import collect, importers
from specialize_jax.tokenizers import Expander, Recorded, Segmenter, Steps, Student
from tests.fixtures.greedy import Greedy
from tests.real_data import data_dir


def steps_of(texts):
    """Returns `Recorded` texts as arrays."""
    numbers, tokens, candidates, p, counts = {}, [], [], [], []
    for text in texts:
        tokens += [numbers.setdefault(token, len(numbers)) for token in text.tokens] + [-1]
        for step in [*text.candidates, text.terminal or {}]:
            counts.append(len(step))
            candidates += [numbers.setdefault(name, len(numbers)) for name in step]
            p += step.values()
    return Steps(
        strings=list(numbers),
        tokens=np.array(tokens, np.int32),
        offsets=np.cumsum([0, *(len(text.tokens) + 1 for text in texts)]),
        candidates=np.array(candidates, np.int32),
        probabilities=np.array(p, float),
        candidate_offsets=np.cumsum([0, *counts]),
        has_terminal=np.array([text.terminal is not None for text in texts], bool),
        ended=np.array([text.ended for text in texts], bool),
        stops=[text.stop for text in texts],
    )


def student_of(texts, encoded):
    return Student(
        texts,
        np.array([*itertools.chain.from_iterable(ids for ids, _ in encoded)], np.int32),
        np.concatenate([np.zeros((0, 2), np.int32), *(spans for _, spans in encoded)]),
        np.cumsum([0, *(len(ids) for ids, _ in encoded)]),
    )


def assert_same(expander, segmenter, recorded, student, **options):
    steps = steps_of(recorded)
    found = expander.expand(steps, student)
    for r, text in enumerate(recorded):
        assert steps.recorded(r) == text
        begin, end = student.offsets[r : r + 2]
        votes = tokenizers.expand(
            text, student.ids[begin:end].tolist(), student.spans[begin:end], segmenter, **options
        )
        for name in ("tail", "dropped", "open_mass", "reason"):
            np.testing.assert_array_equal(
                getattr(found, name)[begin:end], getattr(votes, name), err_msg=f"{name} of {text}"
            )
        for j in range(end - begin):
            here = slice(*found.offsets[begin + j : begin + j + 2])
            count = here.stop - here.start
            assert not votes.ids[j, count:].any() and not votes.mass[j, count:].any()
            np.testing.assert_array_equal(found.ids[here], votes.ids[j, :count])
            np.testing.assert_array_equal(found.mass[here], votes.mass[j, :count])


_STRING = st.text("ab \n", min_size=1, max_size=3).map(str.encode) | st.sampled_from(
    [b"\n\n", b"<|endoftext|>", b" \n", b"\xc3", b"\xa9"]
)


@st.composite
def _recorded(draw):
    """A teacher that may write anything, with candidates that may be missing."""
    words = draw(st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4))
    target = draw(st.sampled_from([" ", "\n"])).join(words).encode()
    end = draw(st.sampled_from([b"", b"\n", b"\n\n", b"<|endoftext|>"]))
    written, tokens = target + end, []
    while written:
        length = draw(st.integers(1, 4))
        tokens.append(written[:length])
        written = written[length:]

    def step(token):
        names = draw(st.lists(_STRING, max_size=4, unique=True))
        if token is not None and token not in names and draw(st.booleans()):
            names.insert(draw(st.integers(0, len(names))), token)
        weights = [draw(st.integers(0, 9)) for _ in names]
        total = sum(weights) + draw(st.sampled_from([0, 3]))
        # A little more than 1 is rounding.
        lift = draw(st.sampled_from([1.0, 1.0 + 1e-7, 1.0 - 1e-9]))
        return {n: min(w / max(total, 1) * lift, 1.0) for n, w in zip(names, weights, strict=True)}

    recorded = Recorded(
        tokens,
        [step(token) for token in tokens],
        draw(st.none() | st.just(0).map(lambda _: step(None))),
        draw(st.sampled_from([None, b"\n\n", b"\n"])),
        draw(st.booleans()),
    )
    return target, recorded


_PIECES = st.sets(st.text("ab", min_size=2, max_size=3), max_size=5)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(_recorded(), min_size=0, max_size=4),
    _PIECES,
    st.booleans(),
    st.integers(0, 4),
    st.booleans(),
    st.booleans(),
)
def test_equals_expand_whatever_the_teacher_wrote(
    texts, pieces, with_marker, depth, unlisted_votes, with_share
):
    marked = ["\u2581" + piece for piece in pieces] if with_marker else []
    student = Greedy(["\u2581", "a", "b", *sorted(pieces), *sorted(marked)])
    encoded = []
    for target, recorded in texts:
        ids, spans = student.encode_with_spans(target.decode())
        if recorded.ended:
            ids, spans = [*ids, student.eos_id], np.concatenate([spans, [[0, 0]]])
        encoded.append((ids, np.asarray(spans).reshape(-1, 2)))
    options = {
        "depth": depth,
        "unlisted_votes": unlisted_votes,
        "share": (lambda prefix: 1 / (1 + len(prefix))) if with_share else None,
    }
    segmenter = Segmenter(student)
    expander = Expander(segmenter, **options)
    columns = student_of([target for target, _ in texts], encoded)
    for _ in range(2):  # the second time from what it knows
        assert_same(expander, segmenter, [text for _, text in texts], columns, **options)


def assert_rows_same(rows, tokenizer):
    """Teacher records of a student whose spaces cut: `expand`, which knows no shortcut, agrees."""
    columns = Columns(pa.Table.from_pylist(rows, schema=records.ARROW_SCHEMA))
    segmenter = Segmenter(tokenizer)
    assert segmenter.spaces_cut
    encoded = []
    for row in rows:
        ids, spans = tokenizer.encode_with_spans(records.target_text(row))
        encoded.append(([*ids, tokenizer.eos_id], np.concatenate([spans, [[0, 0]]])))
    student = student_of([text.encode() for text in columns.targets], encoded)
    steps = columns.steps(np.arange(len(rows)))
    recorded = [steps.recorded(r) for r in range(len(rows))]
    assert_same(Expander(segmenter), Segmenter(tokenizer), recorded, student)


def test_real_records_are_expanded_to_the_last_bit():
    data = epath.Path(data_dir())
    t5 = tokenizers.load(data / "tokenizer_t5" / "spiece.model")
    found = importers.SOURCES["codex_top5_steps"].rows(data)
    assert_rows_same([row for row in found if not isinstance(row, str)], t5)


@pytest.mark.parametrize("model_type", tokenizers.MODEL_TYPES)
def test_the_embedded_world_is_expanded_to_the_last_bit(model_type, tmp_path):
    families = ("stories", "boolean")
    questions = [q for family in families for q in miniworld.questions(family, "train", 12)]
    path = tmp_path / "student.model"
    texts = [t for q in questions for t in (q.question, miniworld.solution(q))]
    path.write_bytes(tokenizers.train(texts, 90, model_type))
    teacher = miniworld.Teacher(0.2, 200)
    rows = collect.rows(teacher, questions, num_samples=1, top_logprobs=6, seed=0)
    assert_rows_same(list(rows), tokenizers.load(path))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("ab1.½é{\n \t\u3000ﬁ\u0301", max_size=8), max_size=4))
def test_texts_encoded_together_are_encoded_one_by_one(texts):
    t5 = _t5()
    ids, spans, offsets = t5.encode_batch_with_spans(texts)
    for text, start, end in zip(texts, offsets[:-1], offsets[1:], strict=True):
        expected_ids, expected_spans = t5.encode_with_spans(text)
        assert ids[start:end].tolist() == expected_ids
        np.testing.assert_array_equal(spans[start:end], expected_spans)


_BYTES_AND_SPACES = [
    "I say 你 now.",
    "x \u1300 y\u1300",  # no piece: three byte tokens each
    "Line one.\nLine  two.",
    "안녕하세요, 사과 12개.",
    "👨\u200d👩 family",
]


def test_a_student_that_keeps_white_space_and_spells_bytes(tmp_path):
    path = tmp_path / "mistral.model"
    path.write_bytes((data_dir() / "tokenizer_mistral" / "tokenizer.model.v1").read_bytes())
    student = tokenizers.load(path)
    segmenter = Segmenter(student)
    teacher = tokenizers.load(data_dir() / "tokenizer_tiktoken" / "p50k_base.tiktoken")
    recorded, encoded = [], []
    for text in _BYTES_AND_SPACES:
        tokens = teacher.token_bytes(teacher.encode(text))
        steps = [{token: 0.7, b" the": 0.2} for token in tokens]
        recorded.append(Recorded(tokens, steps, {b"</s>": 1.0}))
        ids, spans = student.encode_with_spans(text)
        encoded.append(([*ids, student.eos_id], np.append(spans, [[0, 0]], axis=0)))
    texts = [text.encode() for text in _BYTES_AND_SPACES]
    columns = student_of(texts, encoded)
    assert_same(Expander(segmenter), segmenter, recorded, columns)
    # Bytes that go on with a character get a one-hot; all other tokens of the text are voted for.
    for text, record, (ids, spans) in zip(texts, recorded, encoded, strict=True):
        votes = tokenizers.expand(record, ids, spans, segmenter)
        for j, token in enumerate(ids):
            begin = spans[j, 0] if j < len(ids) - 1 else len(text)
            goes_on = 0x80 <= (text + b" ")[begin] < 0xC0
            assert votes.reason[j] == (Reason.INSIDE_SEGMENT if goes_on else Reason.NONE)
            assert goes_on or token in votes.ids[j][votes.mass[j] > 0]


@functools.cache
def _t5():
    return tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model")
