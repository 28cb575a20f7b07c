"""Set up, launched and followed: by which calls, in which order, and what a dry run says of it."""

import shlex
from typing import Any

import pytest

from tests.tpu_scripts.cloud import (
    CREATE,
    DELETE,
    LOOK,
    NOT_FOUND,
    QUICK,
    REFUSED,
    SETUP,
    START,
    TYPE,
    WORDS,
    ZONE,
    Cloud,
    reports,
    scp,
    ssh,
    state,
    unpack,
)

_OK: dict[str, Any] = {}


def test_setup_copies_the_commit_and_installs_it(cloud: Cloud) -> None:
    cloud.answer(vm_scp=[_OK], vm_ssh=[_OK])
    done = cloud.run("setup.sh")
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [scp(cloud), SETUP]


def test_setup_says_what_is_left_behind(cloud: Cloud) -> None:
    cloud.answer(vm_scp=[_OK], vm_ssh=[_OK])
    (cloud.checkout / "setup.py").write_text("# changed\n")
    assert f"workers get {cloud.commit[:12]}" in cloud.run("setup.sh").stderr


def test_setup_by_clone(cloud: Cloud) -> None:
    cloud.answer(vm_ssh=[_OK])
    flags = ("--repo=https://host/it's.git", "--ref=v1", "--python=3.13")
    assert cloud.run("setup.sh", *flags).returncode == 0
    fetch = "git clone --quiet 'https://host/it'\\''s.git' specialize_jax"
    call = unpack(f"{fetch} && git -C specialize_jax checkout --quiet v1")
    assert cloud.calls() == [[part.replace("3.12", "3.13") for part in call]]


def test_setup_of_an_unknown_commit(cloud: Cloud) -> None:
    done = cloud.run("setup.sh", "--ref=v9")
    assert (done.returncode, cloud.calls()) == (1, [])
    assert "no git checkout with a commit 'v9'" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        WORDS,
        ("echo", "it's", 'a "b" $HOME `c` \\d', "", "two\nlines", "*", "--flag='x y'", "ü"),
    ],
)
def test_words_reach_all_workers_as_they_were(cloud: Cloud, words: tuple[str, ...]) -> None:
    cloud.answer(vm_ssh=[_OK])
    assert cloud.run("launch.sh", words=words).returncode == 0
    (call,) = cloud.calls()
    assert call[:-1] == ssh("", "all")[:-1]
    prefix = "--command=bash specialize_jax/tpu_scripts/worker.sh start "
    assert shlex.split(call[-1].removeprefix(prefix)) == list(words)


def test_launch_needs_a_command(cloud: Cloud) -> None:
    done = cloud.run("launch.sh")
    assert (done.returncode, cloud.calls()) == (2, [])
    assert "what shall run?" in done.stderr


def test_several_slices_are_reached_through_their_request(cloud: Cloud) -> None:
    cloud.answer(queued_scp=[_OK], queued_ssh=[_OK, _OK])
    assert cloud.run("setup.sh", "--num_slices=2").returncode == 0
    assert cloud.run("launch.sh", "--num_slices=2", words=WORDS).returncode == 0
    on_all = [ZONE, "--node=all", "--worker=all"]
    assert cloud.calls() == [
        ["queued-resources", "scp", *scp(cloud)[2:4], *on_all],
        ["queued-resources", "ssh", "slice", *on_all, SETUP[-1]],
        ["queued-resources", "ssh", "slice", *on_all, START[-1]],
    ]


def test_logs(cloud: Cloud) -> None:
    cloud.answer(vm_ssh=[{"stdout": "step 10\n"}, _OK])
    assert cloud.run("logs.sh").stdout == "step 10\n"
    assert cloud.run("logs.sh", "--once", "--worker=all", "--lines=5").returncode == 0
    assert cloud.calls() == [
        ssh("tail -n 100 -F specialize_jax_run/log", "0"),
        ssh("tail -n 5 specialize_jax_run/log"),
    ]


def test_ssh_that_is_refused_is_tried_again(cloud: Cloud) -> None:
    cloud.answer(vm_ssh=[REFUSED, REFUSED, _OK])
    done = cloud.run("launch.sh", *QUICK, words=WORDS)
    assert done.returncode == 0
    assert cloud.calls() == [START] * 3
    assert "2 of at most 3 times" in done.stderr


def test_pauses_before_ssh_is_tried_again_grow(cloud: Cloud) -> None:
    cloud.answer(vm_ssh=[REFUSED] * 4)
    cloud.program("sleep", f"echo $1 >> '{cloud.folder}/pauses.txt'; true")
    assert cloud.run("launch.sh", "--attempts=4", "--backoff=1m", words=WORDS).returncode == 4
    assert (cloud.folder / "pauses.txt").read_text().split() == ["60", "120", "240"]


@pytest.mark.parametrize("script", ["setup.sh", "launch.sh"])
def test_ssh_that_stays_refused_is_named(cloud: Cloud, script: str) -> None:
    cloud.answer(vm_scp=[REFUSED] * 2, vm_ssh=[REFUSED] * 2)
    done = cloud.run(script, "--attempts=2", "--backoff=0s", words=WORDS)
    assert done.returncode == 4
    assert len(cloud.calls()) == 2
    assert "Connection refused" in done.stderr
    assert "ssh to 'slice' failed 2 times" in done.stderr


def test_an_error_on_a_worker_is_not_repeated(cloud: Cloud) -> None:
    words = "##### Command execution on worker 0 failed with exit status 1. Continuing.\n"
    cloud.answer(vm_ssh=[{"stderr": f"hosts: runs another command\n{words}", "status": 1}])
    done = cloud.run("launch.sh", *QUICK, words=WORDS)
    assert (done.returncode, cloud.calls()) == (1, [START])
    assert "runs another command" in done.stderr


def test_a_dry_run_calls_nothing_and_prints_what_a_run_calls(cloud: Cloud) -> None:
    words = (*WORDS, "it's", "$HOME", "two\nlines", "")
    cloud.answer(
        queued_describe=[NOT_FOUND, state("ACTIVE"), state("ACTIVE")],
        vm_describe=[NOT_FOUND],
        queued_create=[_OK],
        vm_scp=[_OK],
        vm_ssh=[_OK, _OK, reports("exited 0")],
    )
    assert cloud.run("run.sh", TYPE, *QUICK, words=words).returncode == 0
    really = cloud.calls()

    cloud.answer()
    dry = cloud.run("run.sh", TYPE, "--dry_run", words=words)
    assert (dry.returncode, dry.stderr, cloud.calls()) == (0, "", [])
    before, after = dry.stdout.split("# After a preemption these, and so on:\n")
    lines = (line.split() for line in before.replace("two\nlines", "").splitlines())
    assert {line[0] for line in lines} == {"gcloud", "git", "mkdir", "#"}
    assert shlex.split(before, comments=True).count("gcloud") == len(really)
    assert cloud.pasted(before) == really
    again = [LOOK, DELETE, CREATE, LOOK, scp(cloud), SETUP, really[6]]
    assert cloud.pasted(after) == again


@pytest.mark.parametrize("script", ["create.sh", "setup.sh", "launch.sh", "logs.sh", "delete.sh"])
def test_each_script_can_be_looked_at_first(cloud: Cloud, script: str) -> None:
    done = cloud.run(script, TYPE, "--dry_run", words=WORDS)
    assert (done.returncode, cloud.calls()) == (0, [])
    assert "gcloud compute tpus " in done.stdout
