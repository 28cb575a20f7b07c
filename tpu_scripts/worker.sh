#!/usr/bin/env bash
# What happens on a worker. It gets there with the checkout, by setup.sh; the other scripts call it
# by ssh. Every verb may be repeated: ssh to all workers is tried again when it failed for one.
set -euo pipefail

checkout=$HOME/specialize_jax
environment=$HOME/specialize_jax_venv
state=$HOME/specialize_jax_run # pid, command, status and log of what runs here

# Whether what was started last is alive. A pid alone may be another's after a reboot.
is_running() {
  local pid
  pid=$(cat "$state/pid" 2>/dev/null) || return 1
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *"worker.sh run "* ]]
}

# install X.Y: the checkout, on that Python.
install() {
  local wanted
  cd "$checkout"
  wanted="$1 $(cat setup.py constraints.txt | cksum)"
  if [[ $(cat "$environment/installed" 2>/dev/null) != "$wanted" ]]; then
    # uv fetches the Python where the image's is another. The variable is for images that guard
    # theirs (PEP 668).
    PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --clear --python "$1" "$environment"
    python3 -m uv pip install --quiet --python "$environment/bin/python" \
      -c constraints.txt -e '.[tpu]'
    echo "$wanted" >"$environment/installed"
  fi
  echo "$(hostname): installed"
}

# start COMMAND ...
start() {
  local command
  command=$(printf '%q ' "$@")
  mkdir -p "$state"
  if is_running; then
    if [[ $(cat "$state/command") == "$command" ]]; then
      echo "$(hostname): runs it already"
      return
    fi
    echo "$(hostname): runs another command, $(cat "$state/command")" >&2
    echo "launch.sh --replace stops it first" >&2
    return 1
  fi
  rm -f "$state/status"
  printf '%s' "$command" >"$state/command"
  # A session of its own outlives the connection, and stop reaches all its processes at once.
  setsid bash "$checkout/tpu_scripts/worker.sh" run "$@" >>"$state/log" 2>&1 </dev/null &
  echo $! >"$state/pid"
  for _ in {1..50}; do
    if is_running || [[ -e $state/status ]]; then
      echo "$(hostname): started"
      return
    fi
    sleep 0.1
  done
  echo "$(hostname): did not start; $state/log may say why" >&2
  return 1
}

# run COMMAND ...: what start leaves in the background.
run() {
  local status=0
  echo "== $(date -u +%FT%TZ) $(hostname): $(printf '%q ' "$@")"
  # SIGTERM is the command's to answer, by saving; this shell stays to write down how it ended.
  trap : TERM
  cd "$checkout"
  # With the platform named, JAX fails where it would otherwise train on the CPU for want of a TPU.
  PATH="$environment/bin:$PATH" JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu} "$@" || status=$?
  echo "$status" >"$state/status"
  echo "== $(date -u +%FT%TZ) $(hostname): exited with $status"
}

# SIGTERM, upon which the trainer saves; SIGKILL after two minutes.
stop() {
  local group waited
  is_running || return 0
  group=$(cat "$state/pid")
  kill -TERM -- "-$group"
  for ((waited = 0; waited < 1200; waited++)); do
    is_running || return 0
    sleep 0.1
  done
  kill -KILL -- "-$group"
}

status() {
  local ended
  if is_running; then
    echo "worker_status running on $(hostname)"
  elif ended=$(cat "$state/status" 2>/dev/null); then
    echo "worker_status exited $ended on $(hostname)"
  elif [[ -e $state/command ]]; then
    echo "worker_status died on $(hostname)"
  else
    echo "worker_status idle on $(hostname)"
  fi
}

case ${1-} in
  is_running | install | start | run | stop | status) "$@" ;;
  restart)
    stop
    start "${@:2}" ;;
  *)
    echo "worker.sh: expected install, start, restart, stop, status or is_running," \
      "got '${1-}'" >&2
    exit 2 ;;
esac
