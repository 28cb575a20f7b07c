"""From what was read to every number on the page, as plain JSON values.

Nothing is estimated: a number is in a file, or is arithmetic on such numbers (shares, Wilson
intervals, mean accuracies), or is None and said to be absent.
"""

import json
import re
from typing import Any

from specialize_jax.report import (
    accuracy,
    alignment_view,
    choices,
    coerce,
    comparing,
    errors,
    gains,
    means,
    palette,
    roles,
    samples,
    scaling,
    sizes,
)
from specialize_jax.report.collect import Info, Runs, Training

# What a comparison needs, where it is not there.
_NEEDS = {
    "scaling": "accuracy over size (needs runs of two sizes that were asked the same sets)",
    "ablation": "training formats (needs runs that were trained on different formats)",
    "calculators": "gain of a calculator (needs one evaluation with it and one without)",
    "votes": "gain of votes (needs several samples of each question)",
}
_NEEDS_GENERIC = "specialised against generic (needs generic sets, as BBH, beside the others)"
_MOST_SET_TILES = 6  # of accuracies of single data sets; more are summed up by a mean
_MAX_POINTS = 2000  # of a curve; more are neither seen nor worth the bytes
_SHARE_TOLERANCE = 5e-3
_STUDENT_IN_GIN = re.compile(
    r"""^\s*(?:\S*\b(?:MODEL|STUDENT)(?:_NAME)?\s*=\s*['"]([^'"]+)|.*=\s*['"]((?:flan_t5|t5|gpt2)_\w+))""",
    re.MULTILINE,
)


def build(runs: Runs) -> dict[str, Any]:
    """Returns the report: what `report.json` holds and the page shows."""
    notes, problems = list(runs.notes), list(runs.problems)
    accuracies = accuracy.rows(runs.evaluations, problems)
    averages = means.by_role(accuracies)
    report = {
        "sources": [{"folder": folder, "found": found} for folder, found in runs.sources],
        "problems": problems,
        "notes": notes,
        "training": [_training(run, notes) for run in runs.training],
        "coverage": [_coverage(info, notes) for info in runs.aligned],
        "accuracy": accuracies,
        "means": averages,
        "distribution": means.distribution(averages),
        "missing_of_paper": roles.missing_of_paper([row["data_set"] for row in accuracies]),
        "samples": samples.choose(runs.evaluations),
        "samples_each": samples.EACH,
        "alignments": alignment_view.examples(runs.aligned, problems),
        "teachers": [_teacher(info) for info in runs.teachers],
        "packed": [_packed(info) for info in runs.packed],
        "settings": [
            {"label": run.label, "files": run.settings} for run in runs.training if run.settings
        ],
    }
    return {"tiles": _tiles(report), **report, **_comparisons(runs, report)}


def _comparisons(runs: Runs, report: dict[str, Any]) -> dict[str, Any]:
    """Returns what stands several runs, formats or ways of decoding side by side."""
    shown = comparing.reported(report["accuracy"], runs.selected)
    rows = comparing.at_reported(report["accuracy"], shown)
    compared = comparing.means(roles.plain(rows))
    counts = {label: sizes.parameters(config) for label, config in runs.configs.items()}
    trained = {run["label"]: gains.trained_formats(run["splits"]) for run in report["training"]}
    found = {
        "reported": shown,
        "selections": choices.build(runs.selected, report["problems"]),
        "parameters": counts,
        "scaling": scaling.curves(compared, counts),
        "ablation": gains.ablation(compared, trained),
        "calculators": gains.calculators(rows),
        "votes": gains.votes(rows, runs.evaluations),
        "errors": errors.gallery(runs.evaluations, shown),
        "errors_each": errors.EACH,
    }
    absent = [words for key, words in _NEEDS.items() if not found[key]]
    if not any(row["generic"] is not None for row in report["distribution"]):
        absent.insert(0, _NEEDS_GENERIC)
    return {**found, "incomparable": absent}


def _teacher(info: Info) -> dict[str, Any]:
    data = info.info
    counts = {key: coerce.number(data.get(key)) for key in ("rows", "kept", "k")}
    return {
        "label": info.label,
        "teacher": coerce.name(data.get("teacher")),
        **counts,
        "shares": _teacher_shares(data.get("summary")),
        "dropped": coerce.numbers(data.get("dropped")),
        "dropped_candidates": coerce.number(data.get("dropped_candidates")),
    }


def _teacher_shares(summary: Any) -> dict[str, float | None]:
    """Returns in words how often a teacher was right, as `collect` summed it up."""
    if not isinstance(summary, dict):
        return {}
    names = {"first_sample_accuracy": "first sample", "majority_accuracy": "majority"}
    shares = {words: coerce.number(summary.get(key)) for key, words in names.items()}
    passed = coerce.numbers(summary.get("pass_at_k"))
    return {**shares, **{f"pass@{k}": share for k, share in passed.items()}}


def _packed(info: Info) -> dict[str, Any]:
    data = info.info
    splits = data.get("splits")
    if not isinstance(splits, dict):
        splits = {"all": data}
    return {
        "label": info.label,
        "splits": [
            {"name": str(name), **_split(part)}
            for name, part in splits.items()
            if isinstance(part, dict)
        ],
        "dropped": coerce.numbers(data.get("too_long", data.get("dropped"))),
        "on_too_long": coerce.name(data.get("on_too_long")),
    }


def _split(part: dict[str, Any]) -> dict[str, Any]:
    keys = ("rows", "examples", "encoder_fill", "decoder_fill", "coverage")
    numbers = {key: coerce.number(part.get(key)) for key in keys}
    return {**numbers, "formats": coerce.numbers(part.get("formats"))}


def _coverage(info: Info, notes: list[str]) -> dict[str, Any]:
    data, total = info.info, _transfer(info.info)
    shares = [outcome["share"] for outcome in total["outcomes"]]
    if shares and None not in shares and abs(sum(shares) - 1) > _SHARE_TOLERANCE:
        notes.append(
            f"{info.label}: coverage and one-hot shares add up to {sum(shares):.3f}, not 1"
        )
    teachers, sources = data.get("teachers"), data.get("by_source")
    names = [_teacher_name(t) for t in teachers] if isinstance(teachers, list) else []
    return {
        "label": info.label,
        "mode": coerce.name(data.get("mode")),
        "student_tokenizer": coerce.name(data.get("student_tokenizer")),
        "teachers": [name for name in names if name],
        "total": total,
        "by_source": [
            {"source": str(source), **_transfer(part)}
            for source, part in (sources.items() if isinstance(sources, dict) else ())
            if isinstance(part, dict)
        ],
    }


def _teacher_name(value: Any) -> str | None:
    """Returns the name in a teacher_info summary, which may keep `teacher` or be it."""
    inner = value.get("teacher") if isinstance(value, dict) else None
    return coerce.name(inner) or coerce.name(value)


def _transfer(part: dict[str, Any]) -> dict[str, Any]:
    """Returns rows, tokens, coverage, retained mass, and tokens and share of each outcome."""
    tokens, coverage = coerce.number(part.get("cot_tokens")), coerce.number(part.get("coverage"))
    counts = {name.lower(): n for name, n in coerce.numbers(part.get("reasons")).items()}
    rates = {name.lower(): n for name, n in coerce.numbers(part.get("one_hot_rate")).items()}
    transferred = counts.pop("none", counts.pop(palette.TRANSFERRED, None))
    if transferred is None and tokens is not None and counts:
        transferred = tokens - sum(counts.values())
    outcomes = []
    if coverage is not None:
        outcomes.append({"name": palette.TRANSFERRED, "tokens": transferred, "share": coverage})
    known = [name for name in palette.MARKS if name != palette.TRANSFERRED]
    for name in [*known, *sorted((counts | rates).keys() - palette.MARKS.keys() - {"none"})]:
        share = rates.get(name)
        if share is None and name in counts and tokens:
            share = counts[name] / tokens
        if share or counts.get(name):
            outcomes.append({"name": name, "tokens": counts.get(name), "share": share})
    return {
        "rows": coerce.number(part.get("rows")),
        "cot_tokens": tokens,
        "coverage": coverage,
        "retained_mass": coerce.number(part.get("retained_mass")),
        "outcomes": outcomes,
    }


def _training(run: Training, notes: list[str]) -> dict[str, Any]:
    splits = {}
    for split, rows in run.rows.items():
        stride = -(-len(rows) // _MAX_POINTS)
        if stride > 1:
            notes.append(f"{run.label}: one in {stride} of {len(rows):,} '{split}' rows is shown")
            rows = [*rows[:-1:stride], rows[-1]]
        splits[split] = [coerce.numbers(row) for row in rows]
    last = max((row["step"] for rows in splits.values() for row in rows), default=None)
    return {"label": run.label, "student": _student(run), "last_step": last, "splits": splits}


def _student(run: Training) -> str | None:
    """Returns the student's name from the settings, where one of the usual keys holds it."""
    for file, text in run.settings.items():
        if file.endswith(".gin"):
            found = _STUDENT_IN_GIN.search(text)
            student = (found[1] or found[2]) if found else None
        else:
            settings = json.loads(text)
            names = (coerce.name(settings.get(key)) for key in ("student", "model", "model_name"))
            student = next((name for name in names if name), None)
        if student:
            return student
    return None


def _tiles(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the summary: titles with labelled values, each a number or a name."""
    runs, aligned = report["training"], report["coverage"]

    def last(split: str, key: str) -> list[tuple[str, Any]]:
        rows = {run["label"]: run["splits"].get(split, []) for run in runs}
        found = {label: [row[key] for row in r if key in row] for label, r in rows.items()}
        return [(label, values[-1] if values else None) for label, values in found.items()]

    teachers = [(row["label"], row["teacher"]) for row in report["teachers"]]
    teachers = teachers or [(a["label"], name) for a in aligned for name in a["teachers"]]
    tiles = [
        _tile("Teacher", "text", teachers),
        _tile("Student", "text", [(run["label"], run["student"]) for run in runs]),
        _tile("Steps", "count", [(run["label"], run["last_step"]) for run in runs]),
        _tile("Last train loss", "nats", last("train", "loss")),
        _tile("Last held-out loss", "nats", last("validation", "loss")),
        _tile("Coverage", "share", [(a["label"], a["total"]["coverage"]) for a in aligned]),
        _tile(
            "Retained mass", "share", [(a["label"], a["total"]["retained_mass"]) for a in aligned]
        ),
    ]
    return tiles + _accuracy_tiles(report["accuracy"], report["means"])


def _accuracy_tiles(
    accuracies: list[dict[str, Any]], averages: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Returns a tile per role and format, or per task where these are few and of one role."""
    newest = accuracy.last(accuracies)
    tasks = list(dict.fromkeys(_name(row, row["data_set"]) for row in newest))
    one_role = len({row["role"] for row in newest}) < 2
    several = len({row["run"] for row in newest}) > 1
    tiles: dict[str, list[tuple[str, Any]]] = {}
    if one_role and len(tasks) <= _MOST_SET_TILES:
        for row in newest:
            label = f"{row['run']}, {row['mode']}{_at(row['step'])}"
            tiles.setdefault(_name(row, row["data_set"]), []).append((label, row["accuracy"]))
    else:
        for series in _first_modes(averages):
            sets, point = series["sets"], series["points"][-1]
            of = f"mean of {roles.counted(sets)}" if len(sets) > 1 else sets[0].replace("_", " ")
            label = f"{of}, {series['mode']}{_at(point['step'])}"
            label = f"{series['run']}, {label}" if several else label
            title = _name(series, roles.words(series["role"]), series["split"])
            tiles.setdefault(title, []).append((label, point["accuracy"]))
    filled = [_tile(f"Accuracy, {name}", "share", values) for name, values in tiles.items()]
    return filled or [_tile("Accuracy", "share", [])]


def _first_modes(averages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the means that exist, each in the extraction mode that is shown first."""
    first: dict[tuple[Any, ...], dict[str, Any]] = {}
    for series in sorted(averages, key=lambda series: accuracy.mode_order(series["mode"])):
        if series["points"]:
            key = (series["role"], series["format"], series["split"], series["run"])
            first.setdefault(key, series)
    return [series for series in averages if any(series is kept for kept in first.values())]


def _name(row: dict[str, Any], *words: str | None) -> str:
    """Returns the words that are there, then the row's format, as a title has them."""
    return ", ".join(word.replace("_", " ") for word in (*words, row["format"]) if word)


def _at(step: int | None) -> str:
    return "" if step is None else f", step {step:,}"


def _tile(title: str, form: str, values: list[tuple[str, Any]]) -> dict[str, Any]:
    kept = [{"label": label, "value": value} for label, value in values if value is not None]
    if form == "text" and len({entry["value"] for entry in kept}) == 1:
        kept = kept[:1]
    return {"title": title, "form": form, "values": kept}
