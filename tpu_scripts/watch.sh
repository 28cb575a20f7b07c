#!/usr/bin/env bash
# Sees a run through: after a preemption the slice is queued again, and the same command resumes.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: watch.sh --name=NAME --zone=ZONE --accelerator_type=TYPE [FLAGS] -- COMMAND ...

Looks every --poll, until COMMAND succeeded on all workers. A slice that was preempted, suspended
or failed is deleted, queued again, set up, and gets the same COMMAND, which goes on from the last
checkpoint in its MODEL_DIR. When the process of a worker was ended by a signal, or vanished, all
workers get COMMAND again, at most --max_restarts times. A COMMAND that fails by itself is not
repeated. Ctrl-C ends the watch, not the run."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"
need_words
need_type
pin_ref

worker_script=specialize_jax/tpu_scripts/worker.sh
status_command="bash $worker_script status 2>/dev/null || echo 'worker_status idle'"
pause=$(seconds "$poll")
restarts=0 losses=0

# Sets progress to what the workers report, taken together:
#   ended    one was ended by a signal, or vanished: the machine's doing
#   failed   none of that, and the command ended with an error of its own on one
#   idle     neither, and nothing was started on one
#   done     the command succeeded on all
#   running  anything else
# Returns 1 when one did not answer.
ask_workers() {
  local found
  found=$(on_workers all "$status_command") || return 1
  found=$(grep '^worker_status ' <<<"$found") || return 1
  case $found in
    *died* | *"exited 129"* | *"exited 1"[3-9][0-9]* | *"exited 2"[0-9][0-9]*) progress=ended ;;
    *"exited "[1-9]*) progress=failed ;;
    *idle*) progress=idle ;;
    *running*) progress=running ;;
    *) progress='done' ;;
  esac
}

again() {
  ((restarts < max_restarts)) ||
    die "'$name': $1, after $restarts restarts (--max_restarts); logs.sh has its last words"
  restarts=$((restarts + 1))
  say "$name: $1; restart $restarts of at most $max_restarts"
  { step setup.sh && step launch.sh --replace; } || missed
}

recover() {
  losses=$((losses + 1)) restarts=0
  say "$name is $slice_state: queued again, loss $losses"
  step create.sh || die $? "'$name' could not be had again; the same command goes on from here"
  # When it is lost once more in the meantime, the next look sees it.
  { step setup.sh && step launch.sh; } || missed
}

finish() {
  say "the command succeeded on all workers of $name"
  if [[ $delete_when_done == true ]]; then
    step delete.sh --yes
  else
    say "$name goes on costing money until delete.sh"
  fi
  exit 0
}

explain_failure() {
  on_workers all "tail -n 20 specialize_jax_run/log" >&2 || true
  die "the command failed on '$name'; its last words stand above. The slice is still there"
}

look_after() {
  if is_lost; then
    recover
  elif [[ $slice_state =~ ^(NONE|DELETING|STOPPING|STOPPED)$ ]]; then
    die "'$name' is $slice_state: somebody wished so, and it is not queued again; run.sh does that"
  elif ! is_ready; then
    say "$name is $slice_state"
  elif ! ask_workers; then
    missed
  else
    misses=0
    case $progress in
      ended) again "the process of a worker was ended from outside" ;;
      idle) again "nothing was started on a worker" ;;
      failed) explain_failure ;;
      done) finish ;;
    esac
  fi
}

if [[ $dry_run == true ]]; then
  echo "# These two every $poll:"
  look
  on_workers all "$status_command"
  echo "# After a preemption these, and so on:"
  ASSUMED_STATE=SUSPENDED step create.sh
  step setup.sh
  step launch.sh
  exit 0
fi

while :; do
  if look; then
    look_after
  else
    missed
  fi
  sleep "$pause"
done
