#!/bin/sh
# Runs the image on a folder of scans, restricted as on Grand Challenge.
#   tools/test-run.sh INPUT OUTPUT [BUNDLE]       IMAGE=decathlon-unet ENGINE=docker|podman MEMORY=8g GPUS=all
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/engine.sh"

case $# in 2 | 3) ;; *) fail "usage: test-run.sh INPUT OUTPUT [BUNDLE]" 2 ;; esac
[ -d "$1" ] || fail "the input folder $1 does not exist"
mkdir -p "$2"
input=$(CDPATH='' cd -- "$1" && pwd) output=$(CDPATH='' cd -- "$2" && pwd)
set -- "$@" ''
bundle=$3
set --
if [ -n "$bundle" ]; then
    require_bundle "$bundle"
    set -- --volume="$(CDPATH='' cd -- "$bundle" && pwd):/opt/ml/model:ro"
fi
user=$(id -u):$(id -g)
if [ "$(id -u)" = 0 ]; then
    user=1000:1000
    chown "$user" "$output"
elif [ "${ENGINE##*/}" = podman ]; then
    set -- "$@" --userns=keep-id
fi
[ -z "${GPUS:-}" ] || set -- "$@" --gpus="$GPUS"
engine run --rm --platform=linux/amd64 --user="$user" \
    --network=none --cap-drop=ALL --security-opt=no-new-privileges --security-opt=label=disable \
    --read-only --tmpfs=/tmp --pids-limit=256 --shm-size=128m --memory="${MEMORY:-8g}" \
    --ulimit=nofile=1024:1024 --ulimit=nproc=4096:4096 \
    --volume="$input:/input:ro" --volume="$output:/output" "$@" "${IMAGE:-decathlon-unet}"
