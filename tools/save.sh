#!/bin/sh
# Writes what is uploaded to Grand Challenge: the image, and with BUNDLE the model.
#   tools/save.sh FOLDER [BUNDLE]       IMAGE=decathlon-unet ENGINE=docker|podman
# FOLDER/image.tar.gz holds one image; FOLDER/model.tar.gz unpacks to model.json and model.safetensors.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/engine.sh"

case $# in 1 | 2) ;; *) fail "usage: save.sh FOLDER [BUNDLE]" 2 ;; esac
image=${IMAGE:-decathlon-unet}
engine image inspect "$image" > /dev/null || fail "no image is called $image; build it with tools/build.sh"
[ -z "${2:-}" ] || [ -f "$2/model.json" ] || fail "$2 is no model bundle, it has no model.json"
mkdir -p "$1"
trap 'rm -f "$1"/.*.partial' EXIT
# Two steps, since a pipe would hide that the first failed.
rm -f "$1/.image.partial"
engine save --output "$1/.image.partial" "$image"
gzip -c "$1/.image.partial" > "$1/.image.gz.partial"
mv "$1/.image.gz.partial" "$1/image.tar.gz"
if [ -n "${2:-}" ]; then
    # shellcheck disable=SC2046 # names without spaces
    tar -C "$2" --owner=0 --group=0 --mode=a+r -czf "$1/.model.partial" $(bundle_files "$2")
    mv "$1/.model.partial" "$1/model.tar.gz"
fi
ls -l "$1"
