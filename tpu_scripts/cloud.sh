# shellcheck shell=bash
# Every call of gcloud, behind functions that say what for. Sourced first by each script, with its
# arguments; reads the flags.
#
# Flags are those of `gcloud compute tpus queued-resources` and `gcloud compute tpus tpu-vm` in the
# reference of 2025 (https://cloud.google.com/sdk/gcloud/reference/compute/tpus), no alpha or beta.

# shellcheck source=flags.sh
source "$HERE/flags.sh"
read_flags "$@"

slice_kind=queued-resources # or tpu-vm; look says which
slice_state=NONE
errors='' # the file with what gcloud last wrote to stderr

where=(--zone="$zone")
[[ -z $project ]] || where+=(--project="$project")

if [[ $dry_run == false ]]; then
  command -v gcloud >/dev/null ||
    die "gcloud is not installed: https://cloud.google.com/sdk/docs/install, or add --dry_run"
  errors=$(mktemp)
  trap 'rm -f "$errors"' EXIT
fi

QUOTA_HINT="If it is quota: ask for more at https://console.cloud.google.com/iam-admin/quotas,
or take a smaller --accelerator_type, another --zone, or --spot, which has a quota of its own.
Requests that are SUSPENDED or FAILED hold quota until delete.sh removes them."

SSH_HINT="Is the slice still there? Is port 22 open (a firewall rule of its network)? Is the key in
your agent (ssh-add ~/.ssh/google_compute_engine)?"

# Runs a command, or prints it under --dry_run.
run() {
  if [[ $dry_run == true ]]; then
    quote "$@"
    echo
  else
    "$@"
  fi
}

# Runs gcloud, whose stderr is shown as it comes and kept in $errors.
gcloud_tpus() {
  if [[ $dry_run == true ]]; then
    run gcloud compute tpus "$@"
  else
    { gcloud compute tpus "$@" </dev/null 2>&1 >&3 3>&- | tee "$errors" >&2 3>&-; } 3>&1
  fi
}

said() { grep -Eiq "$1" "$errors"; }

# Sets slice_kind and slice_state; the state is NONE when no slice has that name.
# Returns 1, with gcloud's words shown, when gcloud could not tell.
look() {
  local field=state.state call
  for slice_kind in queued-resources tpu-vm; do
    call=("$slice_kind" describe "$name" "${where[@]}" --format="value($field)")
    field=state
    if [[ $dry_run == true ]]; then
      gcloud_tpus "${call[@]}"
      slice_state=${ASSUMED_STATE:-ACTIVE}
      [[ $slice_state == NONE ]] || return 0
    elif slice_state=$(gcloud compute tpus "${call[@]}" 2>"$errors" </dev/null); then
      slice_state=${slice_state:-UNKNOWN}
      return 0
    elif ! said 'NOT_FOUND|was not found'; then
      cat "$errors" >&2
      return 1
    fi
  done
  slice_state=NONE
}

is_ready() { [[ $slice_state == ACTIVE || $slice_state == READY ]]; }
is_lost() { [[ $slice_state =~ ^(SUSPENDED|FAILED|PREEMPTED|TERMINATED)$ ]]; }

misses=0 # looks in a row without an answer

# Counts a look without an answer, and gives up after --attempts.
missed() {
  misses=$((misses + 1))
  ((misses < attempts)) ||
    die 4 "'$name' did not answer $misses times in a row. What runs on it may go on all the same"
  say "$name did not answer, $misses of at most $attempts times in a row; looking again"
}

# Waits until the slice is ready. Exits with 3 after --timeout, with 1 when it cannot become ready.
wait_until_ready() {
  local limit pause before='' looks=0 start=$SECONDS
  limit=$(seconds "$timeout")
  pause=$(seconds "$poll")
  while :; do
    if look; then
      misses=0
      if is_ready; then
        say "$name is $slice_state"
        return
      fi
      give_up_if_lost
      # A queue is long: a line per change, and one now and then.
      if [[ $slice_state != "$before" ]] || ((looks % 20 == 0)); then
        say "$name is $slice_state, $(((SECONDS - start) / 60)) min of at most $timeout"
      fi
      before=$slice_state
      looks=$((looks + 1))
    else
      missed
    fi
    ((SECONDS - start < limit)) || die 3 "'$name' is still ${before:-unknown} after $timeout." \
      "The same command again waits on; delete.sh gives it up"
    sleep "$pause"
  done
}

give_up_if_lost() {
  [[ $slice_state != NONE ]] || die "'$name' is gone from $zone: somebody deleted it"
  is_lost || return 0
  gcloud_tpus "$slice_kind" describe "$name" "${where[@]}" >&2 || true
  die "'$name' is $slice_state, and will not become ready; Google's words stand above. $QUOTA_HINT"
}

# Tries again, with growing pauses, while ssh does not reach a worker. What fails on a worker is
# not repeated.
with_patience() {
  local pause attempt
  pause=$(seconds "$backoff")
  for ((attempt = 1; ; attempt++)); do
    "$@" && return
    said 'return code \[255\]|exit status 255|connection (refused|timed out|reset|closed)' ||
      die "a worker of '$name' reported an error; it stands above"
    ((attempt < attempts)) || die 4 "ssh to '$name' failed $attempts times. $SSH_HINT"
    say "ssh to '$name' failed, $attempt of at most $attempts times; again in ${pause}s"
    sleep "$pause"
    pause=$((pause * 2))
  done
}

# on_workers WORKER COMMAND: runs a shell command on a worker, or on 'all', of every slice.
on_workers() {
  if ((num_slices > 1)); then
    gcloud_tpus queued-resources ssh "$name" "${where[@]}" --node=all --worker="$1" --command="$2"
  else
    gcloud_tpus tpu-vm ssh "$name" "${where[@]}" --worker="$1" --command="$2"
  fi
}

# to_workers FILE NAME: copies a file into the home folder of every worker.
to_workers() {
  if ((num_slices > 1)); then
    gcloud_tpus queued-resources scp "$1" "$name:$2" "${where[@]}" --node=all --worker=all
  else
    gcloud_tpus tpu-vm scp "$1" "$name:$2" "${where[@]}" --worker=all
  fi
}

# Deletes what look found.
delete_slice() {
  if [[ $slice_kind == tpu-vm ]]; then
    gcloud_tpus tpu-vm delete "$name" "${where[@]}" --quiet
  else
    # --force: its VMs first; without it, only a request that has none can be deleted.
    gcloud_tpus queued-resources delete "$name" "${where[@]}" --force --quiet
  fi || die "'$name' could not be deleted, and may still cost money; gcloud's words stand above"
}
