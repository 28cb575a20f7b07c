"""Set up, launched, followed and seen through failures: by which calls, and in which order."""

import shlex
from typing import Any

import pytest

from tests.tpu_scripts.cloud import (
    ASK,
    CREATE,
    DELETE,
    LOOK,
    LOOK_AT_VM,
    NOT_FOUND,
    QUICK,
    REFUSED,
    SETUP,
    TYPE,
    ZONE,
    Cloud,
    reports,
    scp,
    ssh,
    start,
    state,
    unpack,
)

_OK: dict[str, Any] = {}
_WORDS = ("specialize-jax", "train", "--gin.MODEL_DIR='gs://b/my run'")
_QUOTED = """specialize-jax train '--gin.MODEL_DIR='\\''gs://b/my run'\\'''"""
_START, _RESTART = start(_QUOTED), start(_QUOTED, "restart")
_TAIL = "tail -n 20 specialize_jax_run/log"


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
        _WORDS,
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
    assert cloud.run("launch.sh", "--num_slices=2", words=_WORDS).returncode == 0
    on_all = [ZONE, "--node=all", "--worker=all"]
    assert cloud.calls() == [
        ["queued-resources", "scp", *scp(cloud)[2:4], *on_all],
        ["queued-resources", "ssh", "slice", *on_all, SETUP[-1]],
        ["queued-resources", "ssh", "slice", *on_all, _START[-1]],
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
    done = cloud.run("launch.sh", *QUICK, words=_WORDS)
    assert done.returncode == 0
    assert cloud.calls() == [_START] * 3
    assert "2 of at most 3 times" in done.stderr


@pytest.mark.parametrize("script", ["setup.sh", "launch.sh"])
def test_ssh_that_stays_refused_is_named(cloud: Cloud, script: str) -> None:
    cloud.answer(vm_scp=[REFUSED] * 2, vm_ssh=[REFUSED] * 2)
    done = cloud.run(script, "--attempts=2", "--backoff=0s", words=_WORDS)
    assert done.returncode == 4
    assert len(cloud.calls()) == 2
    assert "Connection refused" in done.stderr
    assert "ssh to 'slice' failed 2 times" in done.stderr


def test_an_error_on_a_worker_is_not_repeated(cloud: Cloud) -> None:
    words = "##### Command execution on worker 0 failed with exit status 1. Continuing.\n"
    cloud.answer(vm_ssh=[{"stderr": f"hosts: runs another command\n{words}", "status": 1}])
    done = cloud.run("launch.sh", *QUICK, words=_WORDS)
    assert (done.returncode, cloud.calls()) == (1, [_START])
    assert "runs another command" in done.stderr


def _watch(cloud: Cloud, *flags: str) -> Any:
    return cloud.run("watch.sh", TYPE, *QUICK, *flags, words=_WORDS)


def test_watch_ends_with_the_run(cloud: Cloud) -> None:
    asked = [reports("running", "running"), reports("exited 0", "running")]
    cloud.answer(
        queued_describe=[state("ACTIVE") | {"again": True}],
        vm_ssh=[*asked, reports("exited 0", "exited 0")],
    )
    done = _watch(cloud)
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [LOOK, ASK] * 3
    assert "costing money until delete.sh" in done.stderr


def test_watch_deletes_when_told_so(cloud: Cloud) -> None:
    active = state("ACTIVE")
    cloud.answer(
        queued_describe=[active, active], vm_ssh=[reports("exited 0")], queued_delete=[_OK]
    )
    assert _watch(cloud, "--delete_when_done").returncode == 0
    assert cloud.calls() == [LOOK, ASK, LOOK, DELETE]


@pytest.mark.parametrize("lost", ["SUSPENDED", "FAILED"])
def test_a_preempted_run_is_resumed(cloud: Cloud, lost: str) -> None:
    states = ["ACTIVE", "SUSPENDING", lost, lost, "PROVISIONING", "ACTIVE", "ACTIVE"]
    cloud.answer(
        queued_describe=[state(name) for name in states],
        queued_delete=[_OK],
        queued_create=[_OK],
        vm_scp=[_OK],
        vm_ssh=[reports("running", "running"), _OK, _OK, reports("exited 0", "exited 0")],
    )
    done = _watch(cloud)
    assert done.returncode == 0, done.stderr
    again = [LOOK, DELETE, CREATE, LOOK, LOOK, scp(cloud), SETUP, _START]
    assert cloud.calls() == [LOOK, ASK, LOOK, LOOK, *again, LOOK, ASK]


def test_a_preempted_vm_is_made_again_the_way_it_was(cloud: Cloud) -> None:
    states = ["READY", "PREEMPTED", "PREEMPTED", "READY", "READY"]
    cloud.answer(
        queued_describe=[NOT_FOUND | {"again": True}],
        vm_describe=[state(name) for name in states],
        vm_delete=[_OK],
        vm_create=[_OK],
        vm_scp=[_OK],
        vm_ssh=[reports("running"), _OK, _OK, reports("exited 0")],
    )
    done = _watch(cloud, "--now")
    assert done.returncode == 0, done.stderr
    changes = [call[:2] for call in cloud.calls() if call[1] != "describe"]
    assert [verb for _, verb in changes] == ["ssh", "delete", "create", "scp", "ssh", "ssh", "ssh"]
    assert {kind for kind, _ in changes} == {"tpu-vm"}


def test_what_resumes_is_the_commit_that_began(cloud: Cloud) -> None:
    """A commit made during the run stays out of it."""
    lost = [state("SUSPENDED"), state("SUSPENDED"), state("ACTIVE"), state("ACTIVE")]
    cloud.answer(
        queued_describe=lost,
        queued_delete=[_OK],
        queued_create=[_OK],
        vm_scp=[_OK],
        vm_ssh=[_OK, _OK, reports("exited 0")],
    )
    # The first call of git after the commit was pinned, `status`, finds another HEAD.
    git = "case $3 in status) [[ -e $0.done ]] || { touch $0.done; PATH=${PATH#*:} "
    git += "git -C $2 -c user.name=n -c user.email=e commit --quiet --allow-empty -m b; };; esac; "
    cloud.program("git", git + "PATH=${PATH#*:} exec git")
    assert _watch(cloud).returncode == 0
    assert cloud.git("rev-parse", "HEAD").strip() != cloud.commit
    assert cloud.archived_commit() == cloud.commit


def test_lost_again_while_it_is_set_up(cloud: Cloud) -> None:
    states = ["SUSPENDED", "SUSPENDED", "ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE", "ACTIVE"]
    cloud.answer(
        queued_describe=[state(name) for name in states],
        queued_delete=[_OK, _OK],
        queued_create=[_OK, _OK],
        vm_scp=[REFUSED, REFUSED, REFUSED, _OK],
        vm_ssh=[_OK, _OK, reports("exited 0")],
    )
    done = _watch(cloud)
    assert done.returncode == 0, done.stderr
    made = [LOOK, LOOK, DELETE, CREATE, LOOK]
    first = [*made, *[scp(cloud)] * 3]
    assert cloud.calls() == [*first, *made, scp(cloud), SETUP, _START, LOOK, ASK]


def test_no_quota_for_the_lost_slice_ends_the_watch(cloud: Cloud) -> None:
    refused = {"stderr": "ERROR: RESOURCE_EXHAUSTED: Quota exceeded\n", "status": 1}
    lost = state("SUSPENDED")
    cloud.answer(queued_describe=[lost, lost], queued_delete=[_OK], queued_create=[refused])
    done = _watch(cloud)
    assert done.returncode == 1
    assert "could not be had again" in done.stderr
    assert cloud.calls() == [LOOK, LOOK, DELETE, CREATE]


@pytest.mark.parametrize("status", ["died", "exited 143", "exited 134", "idle"])
def test_a_process_that_was_ended_is_started_again_on_all(cloud: Cloud, status: str) -> None:
    asked = [reports("running", status), _OK, _OK, reports("exited 0", "exited 0")]
    cloud.answer(queued_describe=[state("ACTIVE")] * 2, vm_scp=[_OK], vm_ssh=asked)
    done = _watch(cloud)
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [LOOK, ASK, scp(cloud), SETUP, _RESTART, LOOK, ASK]


def test_restarts_are_counted(cloud: Cloud) -> None:
    cloud.answer(
        queued_describe=[state("ACTIVE")] * 2,
        vm_scp=[_OK],
        vm_ssh=[reports("died"), _OK, _OK] + [reports("died")],
    )
    done = _watch(cloud, "--max_restarts=1")
    assert done.returncode == 1
    assert "after 1 restarts (--max_restarts)" in done.stderr


def test_a_command_that_fails_is_not_repeated(cloud: Cloud) -> None:
    last_words = {"stdout": "specialize-jax: BATCH_SIZE: expected ...\n"}
    asked = [reports("running", "exited 1"), last_words]
    cloud.answer(queued_describe=[state("ACTIVE")], vm_ssh=asked)
    done = _watch(cloud)
    assert done.returncode == 1
    assert "BATCH_SIZE" in done.stderr
    assert cloud.calls() == [LOOK, ASK, ssh(_TAIL)]


def test_a_slice_that_somebody_deleted_is_left_alone(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[NOT_FOUND], vm_describe=[NOT_FOUND])
    done = _watch(cloud)
    assert done.returncode == 1
    assert "somebody wished so" in done.stderr
    assert cloud.calls() == [LOOK, LOOK_AT_VM]


def test_watch_outlives_a_few_missing_answers(cloud: Cloud) -> None:
    offline = {"stderr": "ERROR: network is unreachable\n", "status": 1}
    active = state("ACTIVE")
    asked = [REFUSED, reports("running"), REFUSED, {"stdout": "nonsense\n"}, REFUSED]
    cloud.answer(queued_describe=[active, offline, *[active] * 4], vm_ssh=asked)
    done = _watch(cloud)
    assert done.returncode == 4
    assert "did not answer 3 times in a row" in done.stderr
    assert cloud.calls() == [LOOK, ASK, LOOK, *[LOOK, ASK] * 4]


def test_a_dry_run_calls_nothing_and_prints_what_a_run_calls(cloud: Cloud) -> None:
    words = (*_WORDS, "it's", "$HOME", "two\nlines", "")
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
    done = cloud.run(script, TYPE, "--dry_run", words=_WORDS)
    assert (done.returncode, cloud.calls()) == (0, [])
    assert "gcloud compute tpus " in done.stdout
