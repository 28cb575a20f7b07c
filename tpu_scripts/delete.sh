#!/usr/bin/env bash
# Deletes a slice, or takes it out of the queue.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
USAGE="\
usage: delete.sh --name=NAME --zone=ZONE [--yes] [FLAGS]

Deletes the slice with the disks of its workers; what is in a bucket stays. Asks first, unless
--yes. That there is nothing to delete is no error."
# shellcheck source=cloud.sh
source "$HERE/cloud.sh"

look || die "whether '$name' exists is not known; gcloud's words stand above"
if [[ $slice_state == NONE ]]; then
  say "there is no '$name' in $zone, nothing to delete"
  exit 0
fi
if [[ $yes == false && $dry_run == false ]]; then
  [[ -t 0 ]] || die 2 "'$name' is $slice_state; nobody is here to be asked, so say --yes"
  read -r -p "Delete '$name' in $zone ($slice_state), with its workers' disks? [y/N] " answer
  [[ $answer == [yY]* ]] || die 2 "'$name' was left alone"
fi
delete_slice
say "$name is deleted"
