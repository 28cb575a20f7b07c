"""The console script: help without gin, unknown commands, versions."""

import subprocess
import sys

import pytest

from specialize_jax import __version__
from specialize_jax.apps import main


@pytest.mark.parametrize("command", [None, *main.COMMANDS])
def test_help_shows_flags(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main([command, "--help"] if command else ["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    if command is None:
        assert all(name in text for name in main.COMMANDS)
    elif main.COMMANDS[command][2]:
        assert "--gin_file" in text and "example:" in text


def test_help_needs_neither_gin_nor_jax():
    code = (
        "import sys; sys.modules['gin'] = None; sys.modules['jax'] = None\n"
        "from specialize_jax.apps import main\n"
        "main.main(['--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "evaluate" in done.stdout


def test_an_unknown_command_names_the_choices(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["destill"])
    assert stop.value.code == 2
    assert "invalid choice: 'destill'" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit):
        main.main(["--version"])
    assert __version__ in capsys.readouterr().out


def test_a_traceback_on_request(monkeypatch, tmp_path):
    monkeypatch.setenv("SPECIALIZE_JAX_TRACEBACK", "1")
    with pytest.raises(ValueError, match="does not exist"):
        main.main(["verify", str(tmp_path / "absent")])
