#!/usr/bin/env bash
# Makes sure that a TPU slice is there: queues it, and waits until it is ready.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: create.sh --name=NAME --zone=ZONE --accelerator_type=TYPE [FLAGS]

Queues a slice and waits until it is ready. One that exists is waited for; one that was preempted
or failed is deleted and queued again. Given again after an interruption, it waits on."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"
need_type

# https://cloud.google.com/tpu/docs/runtimes, section "PyTorch and JAX", as of 2025.
default_runtime() {
  case $accelerator_type in
    v2-* | v3-* | v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v5e-*) die 2 "--accelerator_type: Google calls it v5litepod-${accelerator_type#v5e-}" ;;
    tpu7x*) die 2 "--accelerator_type: TPU7x is given on GKE only; see xpk in README.md here" ;;
    *)
      die 2 "--accelerator_type: no --runtime_version is known for '$accelerator_type', only for" \
        "v2-N, v3-N, v4-N, v5litepod-N, v5p-N and v6e-N: correct it, or name a version" ;;
  esac
}

request() {
  local kind=queued-resources call=(--accelerator-type="$accelerator_type")
  if [[ $now == true ]]; then
    kind=tpu-vm
    call+=(--version="$runtime_version")
  elif ((num_slices > 1)); then
    call+=(--runtime-version="$runtime_version" --node-count="$num_slices" --node-prefix="$name")
  else
    call+=(--runtime-version="$runtime_version" --node-id="$name")
  fi
  [[ $spot == false ]] || call+=(--spot)
  [[ $reserved == false ]] || call+=(--reserved)
  [[ -z $valid_until ]] || call+=(--valid-until-duration="$valid_until")
  # This way round because bash 3.2 calls an empty array unset.
  call+=(${gcloud_flags[@]+"${gcloud_flags[@]}"})
  gcloud_tpus "$kind" create "$name" "${where[@]}" "${call[@]}"
}

explain_refusal() {
  if said 'quota|RESOURCE_EXHAUSTED'; then
    die "$1" "'$name' was refused for want of quota; gcloud's words stand above. $QUOTA_HINT"
  fi
  die "$1" "'$name' was not made; gcloud's words stand above"
}

[[ -n $runtime_version ]] || runtime_version=$(default_runtime)
ASSUMED_STATE=${ASSUMED_STATE:-NONE} # under --dry_run
look || die "whether '$name' exists is not known; gcloud's words stand above"
if is_lost; then
  say "$name is $slice_state: deleted, and made again"
  delete_slice
  slice_state=NONE
fi
if [[ $slice_state == NONE ]]; then
  request || explain_refusal $?
else
  say "$name exists already, and is $slice_state: used as it is"
fi
ASSUMED_STATE=ACTIVE
wait_until_ready
