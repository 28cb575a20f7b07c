"""Which checkpoints are kept: by hand, by a dull reference, and as Orbax's own policies say."""

import datetime
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st
from orbax.checkpoint import checkpoint_managers

from specialize_jax.training.keeping import Keep, Policy

SCORES = {0: None, 10: {"loss": 3.0}, 20: {"loss": 1.0}, 25: None, 30: {"loss": 2.0}, 40: None}


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (Keep(), {0, 10, 20, 25, 30, 40}),
        (Keep(last=2), {0, 30, 40}),
        (Keep(last=99), {0, 10, 20, 25, 30, 40}),
        (Keep(period=20), {0, 20, 40}),
        (Keep(period=25), {0, 25, 40}),  # the newest, too
        (Keep(best=1), {0, 20, 40}),
        (Keep(best=2), {0, 20, 30, 40}),
        (Keep(best=1, mode="max"), {0, 10, 40}),
        (Keep(last=1, period=25, best=1), {0, 20, 25, 40}),
        (Keep(best=1, metric="accuracy"), {0, 10, 20, 30, 40}),  # cannot be told
    ],
)
def test_the_union_of_the_rules_is_kept(keep, expected):
    assert keep.steps(SCORES) == expected


def test_large_is_good_unless_it_is_a_loss():
    scores = {n: {"accuracy": n / 10, "kl_loss": n / 10, "loss/a": n / 10} for n in (1, 2, 3)}
    scores[4] = None
    assert Keep(best=1, metric="accuracy").steps(scores) == {3, 4}
    assert Keep(best=1, metric="kl_loss").steps(scores) == {1, 4}
    assert Keep(best=1, metric="loss/a").steps(scores) == {1, 4}


def test_what_is_no_number_is_worst_and_the_earlier_of_equals_is_better():
    scores = {1: {"loss": float("nan")}, 2: {"loss": None}, 3: {"loss": 7.0}, 4: {"loss": 7.0}}
    scores[5] = None
    assert Keep(best=1).steps(scores) == {3, 5}
    assert Keep(best=1, mode="max").steps(scores) == {3, 5}


_NUMBER = st.one_of(st.none(), st.integers(1, 6))
_SCORES = st.dictionaries(
    st.integers(1, 30), st.integers(0, 9).map(lambda n: {"loss": float(n)}), min_size=1
)


@given(scores=_SCORES, last=_NUMBER, period=_NUMBER, best=_NUMBER)
def test_it_is_as_orbax_says_where_its_policies_serve(scores, last, period, best):
    """They keep the newest only where a rule says so, and the later one of equals."""
    scores = {step: {"loss": v["loss"] + step / 100} for step, v in scores.items()}
    if last is period is best is None:
        return
    rules = [checkpoint_managers.LatestN(last or 1)]
    if period is not None:
        rules.append(checkpoint_managers.EveryNSteps(period))
    if best is not None:
        rules.append(
            checkpoint_managers.BestN(get_metric_fn=lambda m: m["loss"], reverse=True, n=best)
        )
    now = datetime.datetime.now()
    infos = [
        types.SimpleNamespace(step=step, time=now, metrics=scores[step]) for step in sorted(scores)
    ]
    expected = checkpoint_managers.AnyPreservationPolicy(rules).should_preserve(infos, context=None)
    policy = Policy(Keep(last, period, best))
    policy.scores.update(scores)
    assert policy.should_preserve(infos, context=None) == expected


@pytest.mark.parametrize("name", ["last", "period", "best"])
def test_numbers_have_to_be_positive(name):
    with pytest.raises(ValueError, match=f"Expected None or {name} >= 1 to keep, got 0"):
        Keep(**{name: 0})


def test_bad_words_are_named():
    with pytest.raises(ValueError, match="Expected mode 'min', 'max' or None, got 'best'"):
        Keep(mode="best")
    keep = Keep(best=1, metric="accuracy")
    keep.check(None)
    keep.check({"accuracy": None})
    with pytest.raises(ValueError, match="'accuracy' .*held-out lines have loss, coverage."):
        keep.check({"loss": 1.0, "coverage": None, "note": "a text"})
