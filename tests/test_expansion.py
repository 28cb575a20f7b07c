"""Votes for the next student token against enumeration of everything a teacher can write."""

import collections
import math
import random

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from specialize_jax import tokenizers
from specialize_jax.data.aligning import plain
from specialize_jax.schemas import Reason, records
from specialize_jax.tasks import miniworld
from specialize_jax.teacher import importers
from specialize_jax.tokenizers import Recorded, Segmenter
from specialize_jax.tokenizers.expansion import Fate
from tests.fixtures.greedy import Greedy
from tests.real_data import data_dir

END = b"<|endoftext|>"


# ---- the dull reference: the truth over whole texts ----


def truth(texts, student_ids, j, encode):
    """q*(v | y_<j): by definition, over (text, probability) of everything the teacher writes."""
    votes = collections.defaultdict(float)
    for text, probability in texts:
        ids = encode(text)
        if ids[:j] == student_ids[:j] and len(ids) > j:
            votes[ids[j]] += probability
    total = math.fsum(votes.values())
    return {token: mass / total for token, mass in votes.items()}


def teacher_steps(texts, tokenize, text):
    """The teacher's tokens of a text, and the whole distribution before each of them."""
    tokenized = [(tokenize(other), probability) for other, probability in texts]
    tokens = tokenize(text)
    steps = []
    for i in range(len(tokens)):
        votes = collections.defaultdict(float)
        for other, probability in tokenized:
            if other[:i] == tokens[:i]:
                votes[other[i]] += probability
        total = math.fsum(votes.values())
        steps.append({token: mass / total for token, mass in votes.items()})
    return tokens, steps


def distribution(votes, j):
    kept = 1 - votes.dropped[j]
    return {
        int(token): mass / kept
        for token, mass in zip(votes.ids[j], votes.mass[j], strict=True)
        if mass
    }


def distance(first, second):
    """Total variation."""
    keys = first.keys() | second.keys()
    return sum(abs(first.get(key, 0) - second.get(key, 0)) for key in keys) / 2


def assert_mass_sums_to_one(votes):
    total = votes.mass.sum(-1) + votes.tail + votes.dropped
    voted = votes.reason == Reason.NONE
    np.testing.assert_allclose(total[voted], 1, atol=1e-9)
    assert not votes.mass[~voted].any()
    assert np.all(np.diff(votes.mass, axis=-1) <= 0)


def by_characters(text):
    return [*(character.encode() for character in text), END]


def by_words(text):
    """Every token holds the space *behind* its word: each is closed for the student."""
    return [*(word.encode() + b" " for word in text.split()), END]


_WORD = st.text("ab", min_size=1, max_size=3)
_TEXT = st.lists(_WORD, min_size=1, max_size=3).map(" ".join)
_PIECES = st.sets(st.text("ab", min_size=2, max_size=3), max_size=6)


def _student(pieces, with_marker):
    marked = ["\u2581" + piece for piece in pieces] if with_marker else []
    return Greedy(["\u2581", "a", "b", *sorted(pieces), *sorted(marked)])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(_TEXT, st.integers(1, 9)), min_size=1, max_size=6, unique_by=lambda t: t[0]),
    _PIECES,
    st.booleans(),
    st.sampled_from([by_characters, by_words]),
)
def test_equals_the_truth_where_every_candidate_is_closed_or_followed(
    weighted, pieces, with_marker, tokenize
):
    student = _student(pieces, with_marker)
    total = sum(weight for _, weight in weighted)
    texts = [(text, weight / total) for text, weight in weighted]
    text = texts[0][0]
    tokens, steps = teacher_steps(texts, tokenize, text)
    ids, spans = student.encode_with_spans(text)
    ids.append(student.eos_id)
    votes = tokenizers.expand(Recorded(tokens, steps), ids, spans, Segmenter(student), depth=16)
    assert_mass_sums_to_one(votes)
    assert not votes.reason.any()
    encode = lambda other: [*student.encode(other), student.eos_id]  # noqa: E731
    for j in range(len(ids)):
        exact = truth(texts, ids, j, encode)
        if tokenize is by_words and (j == 0 or spans[j - 1][1] in _ends(text)):
            # A word with its space says everything, at the start of a word.
            assert votes.open_mass[j] == 0
        if tokenize is by_characters or j == 0 or spans[j - 1][1] in _ends(text):
            if votes.open_mass[j] == 0 and votes.tail[j] < 1e-12:
                assert distribution(votes, j) == pytest.approx(exact, abs=1e-9)


def _ends(text):
    """Byte offsets at which words end."""
    return {i for i, c in enumerate(text + " ") if c == " "}


@pytest.fixture(scope="module")
def teacher():
    return miniworld.Teacher(error_rate=0.2)


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    texts = [
        text
        for family in ("stories", "boolean")
        for question in miniworld.questions(family, "train", 60)
        for text in (question.question, miniworld.solution(question))
    ]
    path = tmp_path_factory.mktemp("student") / "student.model"
    path.write_bytes(tokenizers.train(texts, 120, "bpe"))
    return tokenizers.load(path)


def enumerated(transitions, state=("start",)):
    """Yields (text, probability) of every solution."""
    if state is None:
        yield "", 1.0
        return
    for way in transitions(state):
        for text, probability in enumerated(transitions, way.to):
            yield way.text + text, way.probability * probability


def _world(teacher, student, question, *, k=None, **options):
    """Votes for a sampled solution and the enumerated truth at each position, all steps known."""
    sample = teacher.sample(question, sample_id=0, top_logprobs=0, seed=0)
    tokens = list(sample.tokens)
    steps = teacher.distributions(question, tokens)[:-1]
    if k is not None:
        steps = [
            dict(sorted(step.items(), key=lambda item: -item[1])[:k]) | {token: step[token]}
            for step, token in zip(steps, tokens, strict=True)
        ]
    text = b"".join(tokens[: sample.end]).decode()
    ids, spans = student.encode_with_spans(text)
    ids.append(student.eos_id)
    recorded = Recorded(tokens, steps, stop=b"\n\n")
    votes = tokenizers.expand(recorded, ids, spans, Segmenter(student), **options)
    texts = list(enumerated(miniworld.solutions(question.source, 0.2)))
    encode = lambda other: [*student.encode(other), student.eos_id]  # noqa: E731
    encoded = {other: encode(other) for other, _ in texts}
    exact = [truth(texts, ids, j, encoded.__getitem__) for j in range(len(ids))]
    return votes, exact, ids, spans


def test_miniworld_equals_enumeration_at_the_start_of_words(teacher, student):
    checked = 0
    for question in miniworld.questions("stories", "train", 6):
        votes, exact, ids, _ = _world(teacher, student, question)
        assert_mass_sums_to_one(votes)
        pieces = student.pieces(ids)
        for j, expected in enumerate(exact):
            starts_word = j == 0 or pieces[j].startswith("\u2581") or ids[j] == student.eos_id
            if votes.open_mass[j] == 0 and votes.tail[j] < 1e-12 and starts_word:
                assert distribution(votes, j) == pytest.approx(expected, abs=1e-9)
                checked += len(expected) > 1
    assert checked > 10


# ---- the known errors, each by a test that shows it ----


def _mean_distance(votes, exact, where=None):
    where = range(len(exact)) if where is None else where
    return np.mean([distance(distribution(votes, j), exact[j]) for j in where])


def test_e1_votes_of_open_candidates_err_only_where_there_is_open_mass():
    """`ab` and `aab`: a teacher by letters, so an unsampled `a` is a vote for the short piece."""
    student = Greedy(["\u2581", "a", "b", "\u2581b", "\u2581a", "\u2581ab"])
    texts = [("b", 0.5), ("ab", 0.3), ("aa", 0.2)]
    tokens, steps = teacher_steps(texts, by_characters, "b")
    votes = tokenizers.expand(Recorded(tokens, steps), [6, 1], [[0, 1]], Segmenter(student))
    assert student.pieces([6]) == ["\u2581b"]
    assert votes.open_mass[0] == pytest.approx(0.5)
    found = {student.pieces([token])[0]: p for token, p in distribution(votes, 0).items()}
    assert found == pytest.approx(
        {"\u2581b": 0.5, "\u2581a": 0.5}
    )  # the truth: \u2581ab 0.3, \u2581a 0.2


def test_e1_grows_with_open_mass():
    """A teacher by letters with every candidate known errs only where strings were open."""
    rng, without, little, much = random.Random(0), [], [], []
    for _ in range(60):
        words = {"".join(rng.choices("ab", k=rng.randint(1, 4))) for _ in range(5)}
        texts = [(word, 1 / len(words)) for word in sorted(words)]
        student = _student({"aa", "bb", "ab"}, with_marker=True)
        for text, _ in texts:
            tokens, steps = teacher_steps(texts, by_characters, text)
            ids, spans = student.encode_with_spans(text)
            ids.append(student.eos_id)
            votes = tokenizers.expand(Recorded(tokens, steps), ids, spans, Segmenter(student))
            encode = lambda other, s=student: [*s.encode(other), s.eos_id]  # noqa: E731
            for j in range(len(ids)):
                error = distance(distribution(votes, j), truth(texts, ids, j, encode))
                mass = votes.open_mass[j]
                (without if mass < 1e-12 else little if mass < 0.5 else much).append(error)
    assert max(without) < 1e-9
    assert len(little) > 50 and len(much) > 50
    assert 0 < np.mean(little) < np.mean(much)


def test_e2_conditions_on_the_sampled_tokens_of_an_ambiguous_teacher():
    """The same bytes in other tokens are another history, of which nothing was recorded."""
    student = Greedy(["\u2581", "a", "b", "c", "d"])
    spelled = {"abc": [b"ab", b"c"], "abd": [b"a", b"bd"]}
    tokenize = lambda text: [*spelled[text], END]  # noqa: E731
    texts = [("abc", 0.5), ("abd", 0.5)]
    exact = [truth(texts, student.encode("abc"), j, student.encode) for j in range(4)]
    ids, spans = student.encode_with_spans("abc")
    tokens, steps = teacher_steps(texts, tokenize, "abc")
    votes = tokenizers.expand(Recorded(tokens, steps), ids, spans, Segmenter(student))
    assert distance(distribution(votes, 3), exact[3]) == pytest.approx(0.5)
    tokens, steps = teacher_steps(texts, by_characters, "abc")
    votes = tokenizers.expand(Recorded(tokens, steps), ids, spans, Segmenter(student))
    assert distance(distribution(votes, 3), exact[3]) == pytest.approx(0, abs=1e-12)


def test_e3_the_tail_shrinks_with_k(teacher, student):
    question = miniworld.questions("stories", "train", 1)[0]
    tails = [_world(teacher, student, question, k=k)[0].tail.mean() for k in (1, 3, 5, None)]
    assert tails == sorted(tails, reverse=True) and tails[0] > 0.05 > tails[2] > tails[3]
    # What is left with every candidate: a lone space that was not sampled.
    assert tails[3] < 0.03


def test_e3_rho_scales_unlisted_mass_inside_a_teacher_token():
    student = Greedy(["\u2581", "a", "b"])
    recorded = Recorded([b"ab", END], [{b"ab": 0.3, b"aa": 0.1}, {END: 1.0}])
    ids, spans = student.encode_with_spans("ab")
    assert student.pieces(ids) == ["\u2581", "a", "b"]
    plain = tokenizers.expand(recorded, ids, spans, Segmenter(student))
    scaled = tokenizers.expand(recorded, ids, spans, Segmenter(student), share=lambda _: 0.5)
    assert plain.tail[2] == pytest.approx(0.6) and scaled.tail[2] == pytest.approx(0.3 / 0.7)


def test_prefix_share_counts_tokens_that_start_so():
    counts = {b"a": 1, b"ab": 2, b"ab\xff": 3, b"b": 4, b"\xff\xff": 10}
    share = tokenizers.prefix_share(counts)
    for prefix in (b"", b"a", b"ab", b"abc", b"b", b"\xff", b"\xff\xff", b"c"):
        dull = sum(n for token, n in counts.items() if token.startswith(prefix)) / 20
        assert share(prefix) == dull
    with pytest.raises(ValueError, match="expected counts of tokens"):
        tokenizers.prefix_share({})


@pytest.mark.parametrize("model_type", tokenizers.MODEL_TYPES)
def test_e4_a_closed_piece_is_final_whatever_follows(model_type, tmp_path):
    """Sure cuts are sure for a learned unigram and BPE model: right context changes no vote."""
    questions = miniworld.questions("stories", "train", 80)
    text = [miniworld.solution(question) for question in questions]
    path = tmp_path / "student.model"
    path.write_bytes(tokenizers.train(text, 60, model_type))
    model = tokenizers.load(path)
    segmenter, rng = Segmenter(model), random.Random(0)
    closed = 0
    for _ in range(300):
        whole = rng.choice(text)
        cut = rng.randrange(1, len(whole))
        fate, token = segmenter.next_token("", (), whole[:cut].encode())
        if fate is Fate.CLOSED:
            closed += 1
            for more in (whole[cut:], "".join(rng.choices("ab 1=.\n", k=8)), ""):
                assert model.encode(whole[:cut] + more)[0] == token
        ids = tuple(model.encode(whole[: cut // 2]))
        fate, token = segmenter.next_token(whole[: cut // 2], ids, whole[cut // 2 : cut].encode())
        for more in (whole[cut:], "".join(rng.choices("ab 1=.\n", k=8)), ""):
            found = tuple(model.encode(whole[:cut] + more))
            if fate is Fate.CLOSED:
                assert (*ids, token) == found[: len(ids) + 1]
            if fate is Fate.CONTRADICTS:
                assert ids != found[: len(ids)]
    assert closed > 50


def test_e5_depth_converges(teacher, student):
    question = miniworld.questions("stories", "train", 1)[0]
    found = [_world(teacher, student, question, depth=depth)[:2] for depth in (0, 1, 2, 4, 8)]
    gaps = [_mean_distance(*pair) for pair in found]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > gaps[-1] and gaps[-2] == pytest.approx(gaps[-1], abs=1e-12)


def test_e6_inside_what_the_normaliser_made_of_one_character():
    """One half is three characters for T5; its second and third begin inside one source character.

    Behind it the votes go on.
    """
    t5 = tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model")
    text = "a \u00bd cup {x"
    ids, spans = t5.encode_with_spans(text)
    recorded = Recorded([text.encode(), END], [{text.encode(): 0.9, b"so": 0.1}, {END: 1.0}])
    votes = tokenizers.expand(recorded, [*ids, 1], spans, Segmenter(t5))
    inside = [j for j in range(1, len(ids)) if spans[j, 0] < spans[j - 1, 1]]
    assert inside and np.flatnonzero(votes.reason == Reason.INSIDE_SEGMENT).tolist() == inside
    others = [j for j in range(len(ids) + 1) if j not in inside]
    assert votes.ids[others, 0].tolist() == [[*ids, 1][j] for j in others]


def test_e7_probabilities_of_a_sharpened_teacher_give_the_sharpened_distribution():
    """Candidates at T = 0.5 are squared and rescaled; so are the votes, no more and no less."""
    student = Greedy(["\u2581", "\u2581a", "\u2581b"])
    exact = {b"a ": 0.8, b"b ": 0.2}
    squared = {name: p**2 / 0.68 for name, p in exact.items()}
    gaps = []
    for step in (exact, squared):
        votes = tokenizers.expand(
            Recorded([b"a ", END], [step, {END: 1.0}]), [4], [[0, 1]], Segmenter(student)
        )
        found = distribution(votes, 0)
        gaps.append(0.8 * math.log(0.8 / found[4]) + 0.2 * math.log(0.2 / found[5]))
    predicted = 0.8 * math.log(0.68 / 0.8) + 0.2 * math.log(0.68 / 0.2)
    assert gaps == pytest.approx([0, predicted], abs=1e-12)


# ---- ends, characters, errors ----


def test_candidates_that_end_where_the_student_token_starts_or_before():
    """Sampled `ab`; what follows an unsampled `a` is unknown, and `x` is another text."""
    student = Greedy(["\u2581a", "b", "c", "\u2581x"])
    step = {b"ab": 0.5, b"a": 0.2, b"ac": 0.1, b"x": 0.1}
    ids, spans = student.encode_with_spans("ab")
    votes = tokenizers.expand(
        Recorded([b"ab", END], [step, {END: 1.0}]), ids, spans, Segmenter(student)
    )
    # The first token: everything is known but the unlisted tenth.
    assert distribution(votes, 0) == pytest.approx({3: 0.8, 6: 0.1})
    # The second, given `a`: 0.8 of `a…` and 0.1 unlisted are the whole.
    assert distribution(votes, 1) == pytest.approx({4: 0.5 / 0.9, 5: 0.1 / 0.9})
    assert votes.tail[1] == pytest.approx(0.3 / 0.9) and votes.dropped[1] == 0


def test_strings_that_the_student_would_have_cut_otherwise_are_dropped():
    """Given `\u2581a`, the text `ab` cannot be: the student has a piece for it."""
    student = Greedy(["\u2581a", "\u2581ab", "\u2581c"])
    recorded = Recorded([b"a", b" c", END], [{b"a": 1.0}, {b" c": 0.6, b"b ": 0.3}, {END: 1.0}])
    ids, spans = student.encode_with_spans("a c")
    votes = tokenizers.expand(recorded, ids, spans, Segmenter(student))
    assert votes.dropped == pytest.approx([0, 0.3])
    assert distribution(votes, 1) == pytest.approx({5: 0.6 / 0.7})


def test_the_end_of_text_is_voted_for_where_it_was_recorded():
    student = Greedy(["\u2581", "\u2581a", "\u2581b"])
    step = {b"a": 1.0}

    def last(recorded):
        votes = tokenizers.expand(recorded, [4, 1], [[0, 1]], Segmenter(student))
        return Reason(int(votes.reason[1])), distribution(votes, 1)

    known = {1: 0.75, 5: 0.25}
    ends = [
        Recorded([b"a", END], [step, {END: 0.75, b" b": 0.25}]),
        Recorded([b"a", b"\n\n"], [step, {b"\n\n": 0.75, b" b": 0.25}], stop=b"\n\n"),
        Recorded([b"a", b"\n\n"], [step, {b"\n\n": 0.75, b" b": 0.25}]),
        Recorded([b"a"], [step], terminal={b"\n\n": 0.75, b" b": 0.25}),
        Recorded(
            [b"a", b"\n", b"\n"], [step, {b"\n": 1.0}, {b"\n": 0.75, b"b": 0.25}], stop=b"\n\n"
        ),
    ]
    for recorded in ends:
        assert last(recorded) == (Reason.NONE, pytest.approx(known))
    assert last(Recorded([b"a"], [step])) == (Reason.END_OF_SEQUENCE, {})


def test_a_character_split_over_teacher_tokens():
    t5 = tokenizers.load(data_dir() / "tokenizer_t5" / "spiece.model")
    ids, spans = t5.encode_with_spans("caf\u00e9")
    recorded = Recorded(
        [b"caf", b"\xc3", b"\xa9", END],
        [{b"caf": 1.0}, {b"\xc3": 0.9, b"e": 0.1}, {b"\xa9": 0.6, b"\xa8": 0.4}, {END: 1.0}],
    )
    votes = tokenizers.expand(recorded, [*ids, 1], spans, Segmenter(t5))
    assert_mass_sums_to_one(votes)
    assert not votes.reason.any()
    # Inside the character it is not told what could stand there instead.
    assert votes.ids[:, 0].tolist() == [*ids, 1]


def test_no_candidate_agrees_with_the_student():
    """`\u2581`, `a`, `b`: another letter may stand for `a`, but after `a` nothing is known."""
    student = Greedy(["\u2581", "a", "b"])
    recorded = Recorded([b"ab", END], [{b"b": 1.0}, {END: 1.0}])
    ids, spans = student.encode_with_spans("ab")
    votes = tokenizers.expand(recorded, ids, spans, Segmenter(student))
    assert [Reason(r).name for r in votes.reason] == ["NONE", "NONE", "NO_MASS"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": -1}, "depth must be at least 0, got -1"),
        ({"recorded": Recorded([b"a"], [])}, "candidates for each of 1 tokens, got 0"),
        ({"spans": np.zeros((3, 2), int)}, r"expected spans \[1, 2\].*got \(3, 2\)"),
        ({"spans": np.array([[0, 9]])}, r"expected spans in \[0, 1\]"),
        ({"recorded": Recorded([b"a"], [{b"a": 1.5}])}, "step 0: expected probabilities.*1.5"),
        (
            {"recorded": Recorded([b"a"], [{b"a": 0.8, b"b": 0.4}])},
            "step 0: expected candidates of mass 1 at most, got 1.2000",
        ),
        ({"recorded": Recorded([b"a"], [{b"a": math.nan}])}, "step 0: expected prob.*nan"),
    ],
)
def test_bad_input_is_named(change, message):
    segmenter = Segmenter(Greedy(["\u2581a"]))
    values = {"recorded": Recorded([b"a"], [{b"a": 1.0}]), "spans": np.array([[0, 1]])} | change
    with pytest.raises(ValueError, match=message):
        tokenizers.expand(student_ids=[3], segmenter=segmenter, **values)


# ---- the published records of code-davinci-002 ----


@pytest.fixture(scope="module")
def real_votes():
    data = epath.Path(data_dir())
    t5 = tokenizers.load(data / "tokenizer_t5" / "spiece.model")
    segmenter, found = Segmenter(t5), []
    for row in importers.SOURCES["codex_top5_steps"].rows(data):
        if not isinstance(row, str):
            ids, spans = t5.encode_with_spans(records.target_text(row))
            recorded = plain.recorded(row)
            found.append((ids, tokenizers.expand(recorded, [*ids, 1], spans, segmenter)))
    return found


def test_real_records_are_covered(real_votes):
    covered, retained = [], []
    for ids, votes in real_votes:
        assert_mass_sums_to_one(votes)
        assert not votes.reason.any()
        retained += votes.mass.sum(-1).tolist()
        covered += (votes.mass.sum(-1) / (1 - votes.dropped) >= 0.5).tolist()
        # What the teacher wrote is always among the votes.
        assert all(token in row for token, row in zip([*ids, 1], votes.ids, strict=True))
    assert len(covered) == 1145
    assert np.mean(covered) >= 0.99
    assert np.mean(retained) >= 0.95
