"""The fixture of these tests."""

import pathlib

import pytest

from tests.tpu_scripts.cloud import Cloud


@pytest.fixture
def cloud(tmp_path: pathlib.Path) -> Cloud:
    return Cloud(tmp_path)
