#!/usr/bin/env bash
# Brings the checkout onto every worker and installs it there.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: setup.sh --name=NAME --zone=ZONE [--ref=REF] [--repo=URL] [FLAGS]

Copies the committed state of this checkout (or lets the workers clone --repo), and installs it for
the TPU, with the versions of constraints.txt, into ~/specialize_jax_venv of every worker. May be
repeated: what is installed is kept, and workers on which something runs are left alone."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"

root=${HERE%/*}
worker_script=specialize_jax/tpu_scripts/worker.sh

send_checkout() {
  local archive=$root/out/tpu_scripts/$name.tar.gz # out/ is not under version control
  pin_ref
  [[ -z $(git -C "$root" status --porcelain) ]] ||
    say "what is not committed stays here: workers get ${ref:0:12}"
  run mkdir -p "${archive%/*}"
  run git -C "$root" archive --format=tar.gz --output="$archive" "$ref"
  with_patience to_workers "$archive" specialize_jax.tar.gz
}

if [[ -z $repo ]]; then
  send_checkout
  unpack="mkdir specialize_jax && tar -xzf specialize_jax.tar.gz -C specialize_jax"
else
  unpack="git clone --quiet $(quote "$repo") specialize_jax"
  unpack+=" && git -C specialize_jax checkout --quiet $(quote "$ref")"
fi
say "installing on all workers of $name: minutes the first time, seconds later"
with_patience on_workers all "\
if bash $worker_script is_running 2>/dev/null; then echo \"\$(hostname): busy, left as it is\"; \
else rm -rf specialize_jax && $unpack && bash $worker_script install $(quote "$python"); fi"
say "$name is set up"
