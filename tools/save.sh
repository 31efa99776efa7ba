#!/bin/sh
# Writes what is uploaded to Grand Challenge: the image, and with BUNDLE the model.
#   tools/save.sh FOLDER [BUNDLE]       IMAGE=decathlon-unet ENGINE=docker|podman
# FOLDER/image.tar.gz holds one image; FOLDER/model.tar.gz unpacks to model.json and model.safetensors, or to the folders
# of an ensemble's bundles.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/engine.sh"

case $# in 1 | 2) ;; *) fail "usage: save.sh FOLDER [BUNDLE]" 2 ;; esac
image=${IMAGE:-decathlon-unet}
engine image inspect "$image" > /dev/null || fail "no image is called $image; build it with tools/build.sh"
[ -z "${2:-}" ] || require_bundle "$2"
mkdir -p "$1"
staged=$(mktemp -d)
trap 'rm -rf "$1"/.*.partial "$staged"' EXIT
# Two steps, since a pipe would hide that the first failed.
rm -f "$1/.image.partial"
engine save --output "$1/.image.partial" "$image"
gzip -nc "$1/.image.partial" > "$1/.image.gz.partial"
mv "$1/.image.gz.partial" "$1/image.tar.gz"
if [ -n "${2:-}" ]; then
    copy_bundle "$2" "$staged/model"
    # The same bundle gives the same bytes: no time, no user, one order.
    (cd "$staged/model" && tar --owner=0 --group=0 --sort=name --mtime=@0 -cf ../model.tar -- *)
    gzip -nc "$staged/model.tar" > "$1/.model.partial"
    mv "$1/.model.partial" "$1/model.tar.gz"
fi
ls -l "$1"
