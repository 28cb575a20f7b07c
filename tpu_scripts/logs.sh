#!/usr/bin/env bash
# Follows what a worker prints.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: logs.sh --name=NAME --zone=ZONE [--worker=N|all] [--lines=N] [--once] [FLAGS]

Follows the log of a worker until Ctrl-C, which does not touch what runs there."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"

follow=' -F'
[[ $once == false ]] || follow=''
with_patience on_workers "$worker" "tail -n $lines$follow specialize_jax_run/log"
