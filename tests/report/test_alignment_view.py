"""Blocks of an alignment against connected components found by brute force."""

import random

import pytest

from specialize_jax.report import alignment_view
from specialize_jax.report.collect import Info
from tests.report import fixtures


def _tokens(ranges, teachers):
    teacher = [{"text": str(i), "breaks": False} for i in range(teachers)]
    student = [{"text": str(j), "start": a, "end": b} for j, (a, b) in enumerate(ranges)]
    return teacher, student


def _blocks(ranges, teachers):
    return alignment_view.blocks(*_tokens(ranges, teachers))


def _members(blocks):
    return [
        ([int(t["text"]) for t in b["teacher"]], [int(s["text"]) for s in b["student"]])
        for b in blocks
    ]


def test_blocks_of_every_shape():
    ranges = [(0, 1), (1, 2), (1, 2), (2, 4), (4, 4)]
    assert _members(_blocks(ranges, 4)) == [([0], [0]), ([1], [1, 2]), ([2, 3], [3]), ([], [4])]


def test_tokens_without_partners_stand_in_their_places():
    assert _members(_blocks([(1, 2)], 3)) == [([0], []), ([1], [0]), ([2], [])]
    assert _members(_blocks([], 2)) == [([0], []), ([1], [])]
    assert _blocks([], 0) == []


def test_a_token_without_partner_inside_a_block_stays_there():
    assert _members(_blocks([(0, 1), (1, 1), (0, 1)], 1)) == [([0], [0, 1, 2])]


def _components(ranges, teachers):
    """Merges sets of linked tokens until none overlap."""
    sets = [{("t", i)} for i in range(teachers)]
    sets += [{("s", j), *(("t", i) for i in range(a, b))} for j, (a, b) in enumerate(ranges)]
    merged = True
    while merged:
        merged = False
        for one in sets:
            other = next((s for s in sets if s is not one and s & one), None)
            if other is not None:
                sets.remove(other)
                one |= other
                merged = True
                break
    return {frozenset(s) for s in sets}


def _random_ranges(rng, teachers):
    """Returns ranges of a random monotone path through all teacher tokens."""
    ranges, i = [], 0
    while i < teachers:
        end = min(teachers, i + rng.choice([1, 1, 1, 2, 3]))
        ranges.append((i, end))
        i = end - 1 if rng.random() < 0.3 and (i, end) != (end - 1, end) else end
        if rng.random() < 0.2:
            ranges.append((end - 1, end))
    return ranges


@pytest.mark.parametrize("seed", range(30))
def test_blocks_are_the_connected_components(seed):
    rng = random.Random(seed)
    teachers = rng.randrange(1, 15)
    ranges = _random_ranges(rng, teachers)
    blocks = _blocks(ranges, teachers)
    found = {
        frozenset([("t", i) for i in ts] + [("s", j) for j in ss]) for ts, ss in _members(blocks)
    }
    assert found == _components(ranges, teachers)
    for block in blocks:  # a student token stands under a teacher token exactly where linked
        for s in block["student"]:
            under = {
                int(t["text"])
                for t in block["teacher"]
                if t["from"] < s["to"] and s["from"] < t["to"]
            }
            assert under == set(range(s["start"], s["end"]))


def test_crossing_links_are_laid_in_two_rows():
    (block,) = _blocks([(0, 2), (0, 2)], 2)
    assert [(t["from"], t["to"]) for t in block["teacher"]] == [(1, 2), (2, 3)]
    assert [(s["from"], s["to"]) for s in block["student"]] == [(1, 2), (2, 3)]


def test_white_space_is_drawn():
    assert alignment_view.visible(" a\n▁\t\x00") == "·a↵▁⇥␀"
    assert alignment_view.visible("") == "∅"


def test_examples_come_worst_first_and_bad_ones_are_named():
    info = fixtures.alignment_info()
    bad = fixtures.good_example()
    bad["student"][0]["teacher_end"] = 99
    unknown = fixtures.good_example()
    unknown["student"][0]["reason"] = 77
    info["examples"] += [bad, {"teacher": []}, unknown, "text"]
    problems: list[str] = []
    shown = alignment_view.examples([Info("a", info)], problems)
    assert [example["coverage"] for example in shown] == [0.1, 0.2]
    assert len(problems) == 4
    assert "example 2" in problems[0] and "[0, 99)" in problems[0]
    assert "student" in problems[1]


def test_candidates_are_sorted_and_the_rest_is_named():
    example = fixtures.good_example()
    example["student"][0] |= {"top": [["b", 0.2], ["a", 0.5]], "tail": 0.1}
    (shown,) = alignment_view.examples([Info("a", {"examples": [example]})], [])
    teacher, student = shown["blocks"][0]["teacher"][0], shown["blocks"][0]["student"][0]
    assert student["top"] == [["a", 0.5], ["b", 0.2]]
    assert student["others"] == pytest.approx(0.2)
    assert teacher["tail"] == pytest.approx(1 - 0.991)
