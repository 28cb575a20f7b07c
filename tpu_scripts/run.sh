#!/usr/bin/env bash
# From nothing to a finished run on a TPU slice: create, setup, launch, watch.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: run.sh --name=NAME --zone=ZONE --accelerator_type=TYPE [FLAGS] -- COMMAND ...

Queues the slice, installs this checkout on its workers, starts COMMAND on all of them, and sees it
through preemptions until it is done. The same line again, after any interruption, goes on. e.g.

  tpu_scripts/run.sh --name=xxl --zone=us-west4-a --accelerator_type=v5litepod-64 --spot -- \\
    specialize-jax train --gin_file=... --gin.MODEL_DIR=\"'gs://bucket/xxl'\""
# shellcheck source=flags.sh
source "$HERE/flags.sh"
read_flags "$@"
need_words
need_type
pin_ref

step create.sh
step setup.sh
step launch.sh
step watch.sh
