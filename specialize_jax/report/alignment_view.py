"""Lays an aligned example out in blocks: teacher tokens over the student tokens they reach.

Letters: `T` teacher tokens, `S` student tokens of one example.

A block is a maximal connected piece of the alignment, so lines may break between blocks and never
inside one. In a monotone alignment every link (teacher token, student token) gets a column of its
block's grid, and each token spans the columns of its links: what stands under what is what is
linked to what.
"""

from collections.abc import Sequence
from typing import Any

from specialize_jax.report import palette
from specialize_jax.report.collect import Info

_VISIBLE = str.maketrans(
    {i: chr(0x2400 + i) for i in range(32)}
    | {" ": "·", "\n": "↵", "\t": "⇥", "\u00a0": "⍽", "\x7f": "␡"}
)


def visible(text: str) -> str:
    """Returns a token with its white space and control characters drawn; `▁` stays as it is."""
    return text.translate(_VISIBLE) or "∅"


def examples(aligned: Sequence[Info], problems: list[str]) -> list[dict[str, Any]]:
    """Returns the examples of all aligned folders, worst coverage first, then retained mass.

    Args:
      aligned: the folders.
      problems: gets a line for every example that cannot be shown.
    """
    found = []
    for info in aligned:
        given = info.info.get("examples")
        for index, example in enumerate(given if isinstance(given, list) else []):
            try:
                found.append(_example(example, info.label))
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else str(error)
                problems.append(f"{info.label}: alignment example {index} is left out: {reason}")
    return sorted(
        found,
        key=lambda e: [2.0 if e[x] is None else e[x] for x in ("coverage", "retained_mass")],
    )


def _example(example: dict[str, Any], label: str) -> dict[str, Any]:
    teacher = [_teacher_token(token) for token in example["teacher"]]
    student = [_student_token(token, len(teacher)) for token in example["student"]]
    return {
        "source": label,
        "example_id": str(example.get("example_id", "")),
        "sample_id": str(example.get("sample_id", "")),
        "question": str(example.get("question") or ""),
        "coverage": _share(example.get("coverage")),
        "retained_mass": _share(example.get("retained_mass")),
        "marks": [name for name in palette.MARKS if any(t["mark"] == name for t in student)],
        "blocks": blocks(teacher, student),
    }


def _share(value: Any) -> float | None:
    return None if value is None else float(value)


def _candidates(top: Any) -> list[list[Any]]:
    """Returns [text, probability] of every candidate, most probable first."""
    pairs = [[visible(str(text)), float(p)] for text, p in top or []]
    return sorted(pairs, key=lambda pair: -pair[1])


def _teacher_token(token: dict[str, Any]) -> dict[str, Any]:
    top = _candidates(token.get("top"))
    tail = max(0.0, 1.0 - sum(p for _, p in top)) if top else None
    return {
        "text": visible(token["text"]),
        "logprob": _share(token.get("logprob")),
        "top": top,
        "others": 0.0,
        "tail": tail,
        "breaks": "\n" in token["text"],
    }


def _student_token(token: dict[str, Any], teacher_tokens: int) -> dict[str, Any]:
    start, end = int(token["teacher_start"]), int(token["teacher_end"])
    if start < end and not 0 <= start < end <= teacher_tokens:
        raise ValueError(f"range [{start}, {end}) leaves the {teacher_tokens} teacher tokens")
    top, tail = _candidates(token.get("top")), _share(token.get("tail"))
    return {
        "text": visible(token["piece"]),
        "id": token.get("id"),
        "mark": palette.mark_of(token["kind"], token["reason"]),
        "start": start,
        "end": max(start, end),
        "top": top,
        # The info file lists the first few of the candidates; what it leaves out is no tail.
        "others": 0.0 if tail is None else max(0.0, 1.0 - tail - sum(p for _, p in top)),
        "tail": tail,
    }


def blocks(
    teacher: Sequence[dict[str, Any]], student: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Groups tokens into maximal connected pieces, in reading order.

    Args:
      teacher: [T] tokens.
      student: [S] tokens with `start` and `end`, the half-open range of their teacher tokens.

    Returns:
      Blocks with `columns`, and `teacher` and `student`, whose tokens have their columns in `from`
      and `to`. A token without a partner is a block of its own, in its place.
    """
    pieces: list[tuple[int, int, list[int]]] = []  # teacher start, teacher end, student indices
    for j, token in enumerate(student):
        start, end, members = token["start"], token["end"], [j]
        while (k := _overlap(pieces, start, end)) is not None:
            start, end = min(start, pieces[k][0]), max(end, pieces[k][1])
            members = [i for piece in pieces[k:] for i in piece[2]] + members
            del pieces[k:]
        pieces.append((start, end, members))
    laid, done = [], 0
    for start, end, members in pieces:
        if start < end:
            laid += [_lay(teacher[i : i + 1], i, []) for i in range(done, start)]
            done = end
        chosen = [student[j] for j in members]
        laid.append(_lay(teacher[start:end], start, chosen))
    return laid + [_lay(teacher[i : i + 1], i, []) for i in range(done, len(teacher))]


def _overlap(pieces: Sequence[tuple[int, int, list[int]]], start: int, end: int) -> int | None:
    """Returns the last piece with teacher tokens if it reaches into [start, end), else None."""
    for k in range(len(pieces) - 1, -1, -1):
        if pieces[k][0] < pieces[k][1]:
            return k if start < end and start < pieces[k][1] else None
    return None


def _lay(
    teacher: Sequence[dict[str, Any]], offset: int, student: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Gives the tokens of one block their columns (counted from 1, as CSS does)."""
    links = [(i - offset, j) for j, s in enumerate(student) for i in range(s["start"], s["end"])]
    all_linked = links and all(s["start"] < s["end"] for s in student)
    if not all_linked or not _contiguous([i for i, _ in links]):
        # Crossing links, or none: two plain rows say no more than is known.
        top = [(t, i + 1, i + 2) for i, t in enumerate(teacher)]
        bottom = [(s, j + 1, j + 2) for j, s in enumerate(student)]
        columns = max(len(teacher), len(student))
    else:
        top = [(t, *_span([a for a, _ in links], i)) for i, t in enumerate(teacher)]
        bottom = [(s, *_span([b for _, b in links], j)) for j, s in enumerate(student)]
        columns = len(links)
    return {
        "columns": columns,
        "teacher": [{**t, "from": a, "to": b} for t, a, b in top],
        "student": [{**s, "from": a, "to": b} for s, a, b in bottom],
        "breaks": any(t["breaks"] for t in teacher),
    }


def _contiguous(owners: Sequence[int]) -> bool:
    """Says whether links in column order keep those of one teacher token together."""
    return list(owners) == sorted(owners)


def _span(owners: Sequence[int], index: int) -> tuple[int, int]:
    columns = [column for column, owner in enumerate(owners, start=1) if owner == index]
    return columns[0], columns[-1] + 1
