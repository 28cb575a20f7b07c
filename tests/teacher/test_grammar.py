"""The grammar teacher against a dull reference: every text it can write, enumerated."""

import collections
import math
import random

import pytest

from specialize_jax.teacher import grammar
from specialize_jax.teacher.grammar import Grammar, Transition

# Two paths write "one two", one of them in a single transition; "onto" shares its first token with
# "one"; the tokenizer cuts pretokens after two characters.
WAYS = {
    "a": [
        Transition(0.5, "one", "b"),
        Transition(0.2, "one two", "c"),
        Transition(0.2, "onto", "c"),
        Transition(0.1, "x", "a2"),
    ],
    "a2": [Transition(1.0, " two", "b")],
    "b": [
        Transition(0.6, " two", "c"),
        Transition(0.3, " twelve", "c"),
        Transition(0.1, " 2", "b"),
    ],
    "c": [Transition(1.0, "\n", None)],
}


def tokenize(pretoken):
    return [pretoken[i : i + 2].encode() for i in range(0, len(pretoken), 2)]


def texts(state="a", depth=8):
    """Yields (tokens, probability) of every text with at most `depth` transitions."""
    if state is None:
        yield (), 1.0
    elif depth:
        for way in WAYS[state]:
            tokens = [t for part in grammar.pretokens(way.text) for t in tokenize(part)]
            for rest, probability in texts(way.to, depth - 1):
                yield (*tokens, *rest), way.probability * probability


def enumerated(prefix):
    """The next-token distribution after a prefix, from all texts."""
    votes = collections.defaultdict(float)
    for tokens, probability in texts():
        if tokens[: len(prefix)] == tuple(prefix) and len(tokens) > len(prefix):
            votes[tokens[len(prefix)]] += probability
    total = math.fsum(votes.values())
    return {token: votes[token] / total for token in votes}


def make(ways=WAYS, cut=tokenize):
    return Grammar("a", lambda state: ways[state], cut)


def test_every_prefix_has_the_enumerated_distribution():
    prefixes = {tokens[:n] for tokens, _ in texts(depth=5) for n in range(len(tokens))}
    assert len(prefixes) > 20
    for prefix in prefixes:
        *_, found = make().distributions(prefix)
        expected = enumerated(prefix)
        assert found.keys() == expected.keys()
        # Enumeration stops at eight transitions: what is longer has a probability below 1e-4.
        assert all(abs(found[token] - expected[token]) < 1e-3 for token in expected), prefix


def test_paths_with_the_same_tokens_are_summed():
    # "on" begins "one", "one two" and "onto".
    assert next(make().distributions([])) == pytest.approx({b"on": 0.9, b"x": 0.1})
    *_, after = make().distributions([b"on", b"e"])
    # P("one" then " two") + P("one two") out of P("one") + P("one two")
    assert after[b" t"] == pytest.approx((0.5 * 0.9 + 0.2) / 0.7)
    assert after[b" 2"] == pytest.approx(0.5 * 0.1 / 0.7)


def test_samples_follow_the_distribution():
    counts = collections.Counter(
        b"".join(step.token for step in make().sample(random.Random(seed))) for seed in range(4000)
    )
    exact = collections.Counter()
    for tokens, probability in texts():
        exact[b"".join(tokens)] += probability
    for text, probability in exact.items():
        if probability > 0.02:
            deviation = math.sqrt(probability * (1 - probability) / 4000)
            assert abs(counts[text] / 4000 - probability) < 4 * deviation


def test_a_sampled_step_carries_the_distribution_it_was_drawn_from():
    steps = list(make().sample(random.Random(3)))
    again = make().distributions([step.token for step in steps])
    for step, expected in zip(steps, again, strict=False):
        assert step.token in step.distribution
        assert step.distribution == expected
    assert steps[-1].token == b"\n"


def test_pretokens_keep_every_character():
    text = "Ann's 12 eggs,\n3 + 4 = 7. Ünï"
    assert "".join(grammar.pretokens(text)) == text
    assert grammar.pretokens("a 12\n= 3.") == ["a", " 12", "\n", "=", " 3", "."]


@pytest.mark.parametrize(
    ("ways", "cut", "prefix", "message"),
    [
        ({"a": [Transition(0.5, "x", None)]}, tokenize, [], "sum to 1"),
        ({"a": [Transition(1.0, "", None)]}, tokenize, [], "expected tokens that make ''"),
        ({"a": [Transition(1.0, "x", None)]}, lambda text: [b"y"], [], "that make 'x'"),
        (WAYS, tokenize, [b"on", b"z"], r"expected one of \[b'e', b'to'\], got b'z'"),
        (
            {
                "a": [Transition(0.5, "x", None), Transition(0.5, "x", "b")],
                "b": [Transition(1.0, "y", None)],
            },
            tokenize,
            [b"x"],
            "may end where another goes on",
        ),
    ],
)
def test_bad_grammars_and_prefixes_are_named(ways, cut, prefix, message):
    with pytest.raises(ValueError, match=message):
        list(make(ways, cut).distributions(prefix))
