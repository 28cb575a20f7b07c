"""A `gcloud` that writes down its calls, and answers as the test wrote.

It runs as a script of its own, so it imports nothing of the tests. The folder FAKE_GCLOUD holds
`calls.jsonl`, one list of arguments a line, and `answers.json`: per "kind verb", e.g. "tpu-vm ssh",
a list of answers that are used up in order; the last one is used again when it says so.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys


def main(arguments: list[str]) -> int:
    folder = pathlib.Path(os.environ["FAKE_GCLOUD"])
    with (folder / "calls.jsonl").open("a") as calls:
        calls.write(json.dumps(arguments) + "\n")
    everything = json.loads((folder / "answers.json").read_text())
    verb = " ".join(arguments[2:4])
    answers = everything.get(verb, [])
    if not answers:
        print(f"fake gcloud: nobody expected another '{verb}': {arguments}", file=sys.stderr)
        return 99
    answer = answers[0] if answers[0].get("again") else answers.pop(0)
    (folder / "answers.json").write_text(json.dumps(everything))
    print(answer.get("stdout", ""), end="")
    print(answer.get("stderr", ""), end="", file=sys.stderr, flush=True)
    if answer.get("workers"):
        return on_workers(folder, verb, arguments[4:])
    return answer.get("status", 0)


def on_workers(folder: pathlib.Path, verb: str, arguments: list[str]) -> int:
    """Does what ssh or scp would, in a home folder per worker on this machine."""
    statuses = []
    for home in sorted(folder.glob("worker_*")):
        if verb == "tpu-vm scp":
            source, destination = arguments[:2]
            shutil.copy(source, home / destination.split(":")[1])
            statuses.append(0)
        else:
            (command,) = (a.split("=", 1)[1] for a in arguments if a.startswith("--command="))
            environment = os.environ | {"HOME": str(home)}
            done = subprocess.run(["bash", "-c", command], cwd=home, env=environment)
            statuses.append(done.returncode)
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
