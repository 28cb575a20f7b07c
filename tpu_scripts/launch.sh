#!/usr/bin/env bash
# Starts the same command on every worker.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: launch.sh --name=NAME --zone=ZONE [--replace] [FLAGS] -- COMMAND ...

Starts COMMAND on every worker, in ~/specialize_jax and in the background, so that it outlives the
connection. Where the same COMMAND runs already, nothing happens; another one is an error, unless
--replace stops it first."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"
need_words

verb=start
[[ $replace == false ]] || verb=restart
with_patience on_workers all \
  "bash specialize_jax/tpu_scripts/worker.sh $verb $(quote "${words[@]}")"
say "$name runs it; logs.sh follows it, watch.sh resumes it after a preemption"
