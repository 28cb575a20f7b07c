"""A run is seen through preemptions, deaths and missing answers, by exactly these calls."""

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
    RESTART,
    SETUP,
    START,
    TYPE,
    WORDS,
    Cloud,
    reports,
    scp,
    ssh,
    state,
)

_OK: dict[str, Any] = {}
_TAIL = "tail -n 20 specialize_jax_run/log"


def _watch(cloud: Cloud, *flags: str) -> Any:
    return cloud.run("watch.sh", TYPE, *QUICK, *flags, words=WORDS)


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
    again = [LOOK, DELETE, CREATE, LOOK, LOOK, scp(cloud), SETUP, START]
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
    """A commit that is made during the run stays out of it."""
    states = ["SUSPENDED", "SUSPENDED", "PROVISIONING", "ACTIVE", "ACTIVE"]
    cloud.answer(
        queued_describe=[state(name) for name in states],
        queued_delete=[_OK],
        queued_create=[_OK],
        vm_scp=[_OK],
        vm_ssh=[_OK, _OK, reports("exited 0")],
    )
    author = "-c user.name=n -c user.email=e"
    commit = f"git -C '{cloud.checkout}' {author} commit --quiet --allow-empty --message=later"
    cloud.program("sleep", f"{commit}; true")  # the pause while the slice is provisioned
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
    assert cloud.calls() == [*first, *made, scp(cloud), SETUP, START, LOOK, ASK]


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
    assert cloud.calls() == [LOOK, ASK, scp(cloud), SETUP, RESTART, LOOK, ASK]


def test_restarts_are_counted(cloud: Cloud) -> None:
    cloud.answer(
        queued_describe=[state("ACTIVE")] * 2,
        vm_scp=[_OK],
        vm_ssh=[reports("died"), _OK, _OK] + [reports("died")],
    )
    done = _watch(cloud, "--max_restarts=1")
    assert done.returncode == 1
    assert "after 1 restarts (--max_restarts)" in done.stderr


def test_a_new_slice_may_be_restarted_as_often_as_the_first(cloud: Cloud) -> None:
    states = ["ACTIVE", "SUSPENDED", "SUSPENDED", "ACTIVE", "ACTIVE", "ACTIVE"]
    died = reports("died")
    cloud.answer(
        queued_describe=[state(name) for name in states],
        queued_delete=[_OK],
        queued_create=[_OK],
        vm_scp=[_OK] * 3,
        vm_ssh=[died, _OK, _OK, _OK, _OK, died, _OK, _OK, reports("exited 0")],
    )
    done = _watch(cloud, "--max_restarts=1")
    assert done.returncode == 0, done.stderr
    assert cloud.calls().count(RESTART) == 2


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
