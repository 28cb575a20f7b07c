# shellcheck shell=bash disable=SC2034 # what is set here is read where this is sourced
#
# The flags of all scripts here, read in one place: each script takes all of them, so that run.sh
# and watch.sh can hand on what they were given. Sourced after HERE and USAGE are set.
# Kept to what bash 3.2 knows, which is what macOS has.

set -euo pipefail

FLAGS="\
which slice:
  --name=NAME               of the slice: small letters, digits and '-'
  --zone=ZONE               e.g. us-west4-a
  --project=PROJECT         default: that of 'gcloud config'
  --num_slices=N            slices that train together (multislice); default 1
how it is made (create.sh, run.sh, watch.sh):
  --accelerator_type=TYPE   v5litepod-16, v5p-64, v6e-16, v4-32, ...
  --runtime_version=NAME    default: Google's for JAX on that type
  --spot | --reserved       cheaper and preemptible | from your reservation; default: on demand
  --valid_until=DURATION    the request leaves the queue after this time
  --now                     one slice at once or an error, instead of a place in the queue
  --gcloud_flag=--FLAG=X    handed on to 'gcloud ... create'; repeatable
  --timeout=DURATION        how long to wait for the slice; default 24h
what is installed on it (setup.sh, run.sh, watch.sh):
  --ref=REF                 commit, branch or tag; default HEAD
  --repo=URL                workers clone this, instead of getting a copy of your checkout
  --python=X.Y              default 3.12 (the images' own is too old)
how it is run and followed:
  --worker=N|all            whose log; default 0
  --lines=N                 of the log at first; default 100
  --once                    logs.sh prints the log's end and returns
  --replace                 launch.sh stops what runs on the workers first
  --max_restarts=N          by watch.sh, on a slice that was not lost; default 3
  --delete_when_done        watch.sh deletes the slice after success
all:
  --dry_run                 prints every command and runs none
  --yes                     does not ask
  --poll=DURATION           between two looks at the slice; default 30s
  --attempts=N              when ssh or gcloud get no answer; default 3
  --backoff=DURATION        before the second attempt, doubled for the next; default 10s
A DURATION is a number with s, m, h or d. The last one counts when a flag is given twice."

say() {
  [[ $dry_run == true ]] || printf '%s %s\n' "$(date +%H:%M:%S)" "$*" >&2
}

# die [STATUS] WORDS ...; the status is 1, 2 for wrong usage, 3 for a timeout, 4 for no answer.
die() {
  local status=1
  if [[ $1 =~ ^[0-9]+$ ]]; then
    status=$1
    shift
  fi
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit "$status"
}

# Prints a DURATION in seconds.
seconds() {
  [[ $1 =~ ^([0-9]+)([smhd])$ ]] || return 1
  local count=$((10#${BASH_REMATCH[1]}))
  case ${BASH_REMATCH[2]} in
    s) echo "$count" ;;
    m) echo "$((count * 60))" ;;
    h) echo "$((count * 3600))" ;;
    d) echo "$((count * 86400))" ;;
  esac
}

# Prints words so that any POSIX shell reads the same words back.
quote() {
  local word value mark="'" escape="'\\''" separator=''
  for word in "$@"; do
    value=$word
    printf '%s' "$separator"
    if [[ $word =~ ^(--[a-z_-]+=)(.*[^A-Za-z0-9_@%+=:,./-].*)$ ]]; then
      printf '%s' "${BASH_REMATCH[1]}"
      value=${word#"${BASH_REMATCH[1]}"}
    fi
    if [[ $value =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
      printf '%s' "$value"
    else
      printf "'%s'" "${value//$mark/$escape}"
    fi
    separator=' '
  done
}

name='' zone='' project='' num_slices=1
accelerator_type='' runtime_version='' valid_until='' timeout=24h
ref=HEAD repo='' python=3.12
worker=0 lines=100 max_restarts=3
poll=30s attempts=3 backoff=10s
spot=false reserved=false now=false once=false replace=false delete_when_done=false
dry_run=false yes=false
gcloud_flags=() # as given
own_flags=()    # all that stood before --
words=()        # what stood after --: the command for the workers

set_flag() {
  local flag=$1 value=$2
  case $flag in
    gcloud_flag) gcloud_flags+=("$value") ;;
    num_slices | max_restarts | attempts | lines)
      [[ $value =~ ^[0-9]+$ ]] || die 2 "--$flag: expected a number, got '$value'"
      printf -v "$flag" '%s' "$((10#$value))" ;;
    valid_until | timeout | poll | backoff)
      seconds "$value" >/dev/null ||
        die 2 "--$flag: expected a duration such as 30s, 20m, 6h or 2d, got '$value'"
      printf -v "$flag" '%s' "$value" ;;
    name | zone | project | accelerator_type | runtime_version | ref | repo | python | worker)
      [[ -n $value ]] || die 2 "--$flag: expected a value, got none"
      printf -v "$flag" '%s' "$value" ;;
    *) die 2 "unknown flag --$flag; ${0##*/} --help lists them" ;;
  esac
}

read_flags() {
  while (($#)); do
    case $1 in
      --help)
        printf '%s\n\n%s\n' "$USAGE" "$FLAGS"
        exit 0 ;;
      --)
        shift
        words=("$@")
        break ;;
      --spot | --reserved | --now | --once | --replace | --delete_when_done | --dry_run | --yes)
        printf -v "${1#--}" true ;;
      --*=*)
        set_flag "$(flag_name "$1")" "${1#*=}" ;;
      --*)
        (($# > 1)) || die 2 "$1: expected a value, got none"
        set_flag "${1#--}" "$2"
        own_flags+=("$1")
        shift ;;
      *) die 2 "unexpected '$1'; what runs on the workers stands after --" ;;
    esac
    own_flags+=("$1")
    shift
  done
  check_flags
}

flag_name() {
  local flag=${1%%=*}
  echo "${flag#--}"
}

check_flags() {
  [[ -n $name ]] || die 2 "--name is required"
  [[ $name =~ ^[a-z][a-z0-9-]*$ ]] ||
    die 2 "--name: expected small letters, digits and '-', a letter first, got '$name'"
  [[ -n $zone ]] || die 2 "--zone is required, e.g. --zone=us-west4-a"
  ((num_slices > 0)) || die 2 "--num_slices: expected at least 1, got $num_slices"
  ((attempts > 0)) || die 2 "--attempts: expected at least 1, got $attempts"
  [[ $spot == false || $reserved == false ]] || die 2 "--spot and --reserved exclude each other"
  [[ $now == false || $num_slices == 1 ]] ||
    die 2 "--now makes one slice, --num_slices=$num_slices come from the queue: drop one of them"
  [[ $now == false || -z $valid_until ]] ||
    die 2 "--valid_until is about the queue, which --now goes round: drop one of them"
  [[ $worker == all || $worker =~ ^[0-9]+$ ]] ||
    die 2 "--worker: expected a number or 'all', got '$worker'"
}

need_type() {
  [[ -n $accelerator_type ]] ||
    die 2 "--accelerator_type is required, e.g. --accelerator_type=v5litepod-16"
}

need_words() {
  ((${#words[@]})) ||
    die 2 "what shall run? e.g. ${0##*/} ... -- specialize-jax train --gin_file=..."
}

# Names the commit now, so that a resumed run gets the code that the first one had, whatever is
# committed in the meantime. A --ref of a --repo is left to the person.
pin_ref() {
  [[ -z $repo ]] || return 0
  local commit
  commit=$(git -C "$HERE" rev-parse --quiet --verify "$ref^{commit}" 2>/dev/null) ||
    die "'${HERE%/*}' is no git checkout with a commit '$ref': name another --ref, or a --repo"
  own_flags+=(--ref="$commit")
  ref=$commit
}

# Runs a script of this folder with the flags and the command that this one was given.
step() { "$HERE/$1" "${own_flags[@]}" "${@:2}" -- "${words[@]}"; }
