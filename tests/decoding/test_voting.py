"""The vote, against counting by hand."""

from hypothesis import given
from hypothesis import strategies as st

from specialize_jax import decoding


@given(st.lists(st.sampled_from(["1", "2", "3", None]), max_size=9))
def test_the_vote_is_the_first_of_the_most_frequent(answers):
    winner = decoding.majority_vote(answers)
    given_answers = [answer for answer in answers if answer is not None]
    if not given_answers:
        assert winner is None
        return
    most = max(given_answers.count(answer) for answer in given_answers)
    assert winner == next(a for a in given_answers if given_answers.count(a) == most)
