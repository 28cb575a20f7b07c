"""The examples of docs/*.md are run here as they stand."""

import doctest
import pathlib
import re

import pytest

_PAGES = sorted((pathlib.Path(__file__).parents[1] / "docs").glob("*.md"))
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run(text, name):
    """Runs the prompts of a page, block after block, as one session.

    Returns:
      How many examples failed and how many were tried, and what was said of those that failed.
    """
    blocks = [match for match in _BLOCK.finditer(text) if ">>> " in match[1]]
    parser, examples = doctest.DocTestParser(), []
    for block in blocks:
        above = text.count("\n", 0, block.start(1))
        for example in parser.get_examples(block[1], name):
            example.lineno += above
            examples.append(example)
    test = doctest.DocTest(examples, {}, name, name, 0, None)
    said = []
    results = doctest.DocTestRunner().run(test, out=said.append)
    return results.failed, results.attempted, "".join(said)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_examples_of_a_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, attempted, said = run(page.read_text(encoding="utf-8"), page.name)
    assert not failed, said
    assert attempted


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_block_has_prompts_or_is_no_python(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("```python") == len([b for b in _BLOCK.findall(text) if ">>> " in b])


def test_a_wrong_output_fails_and_says_where():
    text = "# Title\n\n```python\n>>> x = 1\n```\n\n```python\n>>> x + 1\n3\n\n```\n"
    failed, attempted, said = run(text, "page.md")
    assert (failed, attempted) == (1, 2)
    assert 'File "page.md", line 8' in said and "Got:\n    2" in said
