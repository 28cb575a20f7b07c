"""Slices are made, waited for and deleted by exactly the calls of gcloud that are written here."""

import os
import subprocess
from typing import Any

import pytest

from tests.tpu_scripts.cloud import (
    CREATE,
    DELETE,
    LOOK,
    LOOK_AT_VM,
    NOT_FOUND,
    QUICK,
    TYPE,
    ZONE,
    Cloud,
    state,
)

_OK: dict[str, Any] = {}


def _make(cloud: Cloud, *flags: str) -> list[str]:
    """Returns the call that makes a slice where there is none."""
    ready = state("ACTIVE")
    cloud.answer(
        queued_describe=[NOT_FOUND, *([NOT_FOUND] if "--now" in flags else []), ready],
        queued_create=[_OK],
        vm_describe=[NOT_FOUND, state("READY")],
        vm_create=[_OK],
    )
    done = cloud.run("create.sh", *QUICK, *flags)
    assert done.returncode == 0, done.stderr
    return cloud.calls()[2]


def test_a_slice_is_queued_and_waited_for(cloud: Cloud) -> None:
    waiting = [state("WAITING_FOR_RESOURCES"), state("PROVISIONING"), state("ACTIVE")]
    cloud.answer(
        queued_describe=[NOT_FOUND, *waiting], vm_describe=[NOT_FOUND], queued_create=[_OK]
    )
    done = cloud.run("create.sh", TYPE, *QUICK)
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [LOOK, LOOK_AT_VM, CREATE, LOOK, LOOK, LOOK]
    assert "slice is WAITING_FOR_RESOURCES, 0 min of at most 24h" in done.stderr


def test_flags_of_the_request(cloud: Cloud) -> None:
    flags = ("--spot", "--valid_until", "6h", "--project=p", "--gcloud_flag=--network=mine")
    assert _make(cloud, TYPE, *flags) == [
        *(*CREATE[:4], "--project=p", *CREATE[4:]),
        *("--spot", "--valid-until-duration=6h", "--network=mine"),
    ]
    assert _make(cloud, TYPE, "--reserved") == [*CREATE, "--reserved"]


def test_several_slices_are_one_request(cloud: Cloud) -> None:
    nodes = ["--node-count=4", "--node-prefix=slice"]
    assert _make(cloud, TYPE, "--num_slices=4") == [*CREATE[:-1], *nodes]


def test_now_goes_round_the_queue(cloud: Cloud) -> None:
    assert _make(cloud, TYPE, "--now", "--spot") == [
        *("tpu-vm", "create", "slice", ZONE, "--accelerator-type=v5litepod-16"),
        *("--version=v2-alpha-tpuv5-lite", "--spot"),
    ]
    assert cloud.calls()[3:] == [LOOK, LOOK_AT_VM]


@pytest.mark.parametrize(
    ("accelerator_type", "runtime"),
    [
        ("v3-8", "tpu-ubuntu2204-base"),
        ("v4-32", "tpu-ubuntu2204-base"),
        ("v5litepod-4", "v2-alpha-tpuv5-lite"),
        ("v5p-64", "v2-alpha-tpuv5"),
        ("v6e-256", "v2-alpha-tpuv6e"),
    ],
)
def test_runtime_by_type(cloud: Cloud, accelerator_type: str, runtime: str) -> None:
    call = _make(cloud, f"--accelerator_type={accelerator_type}")
    assert f"--runtime-version={runtime}" in call


def test_a_runtime_can_be_named(cloud: Cloud) -> None:
    call = _make(cloud, "--accelerator_type=v9-8", "--runtime_version=next")
    assert "--runtime-version=next" in call


def test_a_slice_that_exists_is_used(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[state("PROVISIONING"), state("ACTIVE")])
    done = cloud.run("create.sh", TYPE, *QUICK)
    assert done.returncode == 0, done.stderr
    assert cloud.calls() == [LOOK, LOOK]
    assert "exists already" in done.stderr


@pytest.mark.parametrize("lost", ["SUSPENDED", "FAILED"])
def test_a_lost_slice_is_made_again(cloud: Cloud, lost: str) -> None:
    cloud.answer(
        queued_describe=[state(lost), state("ACTIVE")], queued_delete=[_OK], queued_create=[_OK]
    )
    assert cloud.run("create.sh", TYPE, *QUICK).returncode == 0
    assert cloud.calls() == [LOOK, DELETE, CREATE, LOOK]


def test_want_of_quota_is_shown_and_explained(cloud: Cloud) -> None:
    words = "ERROR: (gcloud) RESOURCE_EXHAUSTED: Quota limit 'TPUV5sLitepod' has been exceeded.\n"
    cloud.answer(
        queued_describe=[NOT_FOUND],
        vm_describe=[NOT_FOUND],
        queued_create=[{"stderr": words, "status": 7}],
    )
    done = cloud.run("create.sh", TYPE, *QUICK)
    assert done.returncode == 7
    assert words in done.stderr
    assert "console.cloud.google.com/iam-admin/quotas" in done.stderr
    assert cloud.calls() == [LOOK, LOOK_AT_VM, CREATE]


def test_a_request_that_fails_in_the_queue_is_explained(cloud: Cloud) -> None:
    report = {"stdout": "state:\n  failedData: Quota 'TPUV4s' exhausted. Limit 8\n"}
    cloud.answer(
        queued_describe=[NOT_FOUND, state("FAILED"), report],
        vm_describe=[NOT_FOUND],
        queued_create=[_OK],
    )
    done = cloud.run("create.sh", TYPE, *QUICK)
    assert done.returncode == 1
    assert "Quota 'TPUV4s' exhausted" in done.stderr
    assert cloud.calls()[-1] == LOOK[:-1]


def test_waiting_ends_after_the_timeout(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[state("WAITING_FOR_RESOURCES") | {"again": True}])
    done = cloud.run("create.sh", TYPE, "--poll=0s", "--timeout=1s")
    assert done.returncode == 3
    assert "still WAITING_FOR_RESOURCES after 1s" in done.stderr


def test_a_look_without_an_answer_is_repeated_while_waiting(cloud: Cloud) -> None:
    offline = {"stderr": "ERROR: network is unreachable\n", "status": 1}
    cloud.answer(queued_describe=[state("CREATING"), offline, offline, state("ACTIVE")])
    assert cloud.run("create.sh", TYPE, *QUICK).returncode == 0
    cloud.answer(queued_describe=[state("CREATING"), offline, offline, offline])
    done = cloud.run("create.sh", TYPE, *QUICK)
    assert done.returncode == 4
    assert "did not answer 3 times in a row" in done.stderr


def test_delete_asks_unless_told_not_to(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[state("ACTIVE")])
    done = cloud.run("delete.sh")
    assert done.returncode == 2
    assert "say --yes" in done.stderr
    assert cloud.calls() == [LOOK]
    cloud.answer(queued_describe=[state("ACTIVE")], queued_delete=[_OK])
    assert cloud.run("delete.sh", "--yes").returncode == 0
    assert cloud.calls() == [LOOK, DELETE]


@pytest.mark.parametrize(("reply", "calls"), [(b"n\n", [LOOK]), (b"y\n", [LOOK, DELETE])])
def test_delete_takes_an_answer(cloud: Cloud, reply: bytes, calls: list[list[str]]) -> None:
    cloud.answer(queued_describe=[state("ACTIVE")], queued_delete=[_OK])
    person, terminal = os.openpty()
    try:
        os.write(person, reply)
        done = cloud.run("delete.sh", stdin=terminal)
    finally:
        os.close(person)
        os.close(terminal)
    assert cloud.calls() == calls, done.stderr
    assert done.returncode == (0 if DELETE in calls else 2)


def test_delete_finds_a_slice_that_was_not_queued(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[NOT_FOUND], vm_describe=[state("READY")], vm_delete=[_OK])
    assert cloud.run("delete.sh", "--yes").returncode == 0
    assert cloud.calls() == [LOOK, LOOK_AT_VM, ["tpu-vm", "delete", "slice", ZONE, "--quiet"]]


def test_deleting_again_is_no_error(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[NOT_FOUND], vm_describe=[NOT_FOUND])
    done = cloud.run("delete.sh", "--yes")
    assert done.returncode == 0
    assert "nothing to delete" in done.stderr


def test_delete_does_not_take_a_denial_for_nothing(cloud: Cloud) -> None:
    denied = {"stderr": "ERROR: (gcloud) PERMISSION_DENIED: tpu.nodes.get\n", "status": 1}
    cloud.answer(queued_describe=[denied])
    done = cloud.run("delete.sh", "--yes")
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr


def test_a_deletion_that_fails_is_an_error(cloud: Cloud) -> None:
    cloud.answer(queued_describe=[state("ACTIVE")], queued_delete=[{"status": 5}])
    done = cloud.run("delete.sh", "--yes")
    assert done.returncode == 1
    assert "may still cost money" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--accelerator_type=v5e-16"], "Google calls it v5litepod-16"),
        (["--accelerator_type=tpu7x-8"], "GKE only"),
        (["--accelerator_type=a100"], "only for v2-N, v3-N, v4-N, v5litepod-N, v5p-N and v6e-N"),
        ([], "--accelerator_type is required"),
        ([TYPE, "--name=My Slice"], "got 'My Slice'"),
        ([TYPE, "--spot", "--reserved"], "exclude each other"),
        ([TYPE, "--now", "--num_slices=2"], "drop one of them"),
        ([TYPE, "--now", "--valid_until=1h"], "drop one of them"),
        ([TYPE, "--poll=soon"], "expected a duration such as 30s, 20m, 6h or 2d, got 'soon'"),
        ([TYPE, "--num_slices=few"], "expected a number, got 'few'"),
        ([TYPE, "--attempts=0"], "expected at least 1, got 0"),
        ([TYPE, "--worker=first"], "expected a number or 'all', got 'first'"),
        ([TYPE, "--zoom=1"], "unknown flag --zoom"),
        ([TYPE, "--project"], "expected a value, got none"),
        ([TYPE, "train"], "what runs on the workers stands after --"),
    ],
)
def test_wrong_usage_is_named_before_any_call(cloud: Cloud, flags: list[str], message: str) -> None:
    done = cloud.run("create.sh", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert cloud.calls() == []


@pytest.mark.parametrize("missing", ["--name", "--zone"])
def test_name_and_zone_are_required(cloud: Cloud, missing: str) -> None:
    flags = [flag for flag in ("--name=a", "--zone=b") if not flag.startswith(missing)]
    script = cloud.checkout / "tpu_scripts" / "delete.sh"
    done = subprocess.run([script, *flags], env=cloud.environment(), capture_output=True, text=True)
    assert (done.returncode, cloud.calls()) == (2, [])
    assert f"{missing} is required" in done.stderr
