#!/bin/sh
# Writes what the image is made of, as CycloneDX in JSON: Debian's packages, Python's with their licences and the hashes
# of their wheels, and the libraries that wheels say they bundle.
#   tools/sbom.sh FILE       IMAGE=decathlon-unet ENGINE=docker|podman PYTHON=.venv/bin/python
# PYTHON is that of a development environment, which `make sbom` makes.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/engine.sh"

[ $# = 1 ] || fail "usage: sbom.sh FILE" 2
image=${IMAGE:-decathlon-unet}
python=${PYTHON:-$here/../.venv/bin/python}
"$python" -c 'import cyclonedx' 2> /dev/null \
    || fail "$python has no cyclonedx-python-lib; use make sbom, or name in PYTHON one that has it"
staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
engine image inspect "$image" > "$staged/image.json" || fail "no image is called $image; build it with tools/build.sh"
engine run --rm --interactive --platform=linux/amd64 --network=none --cap-drop=ALL --read-only \
    --security-opt=no-new-privileges --security-opt=label=disable \
    --ulimit=nofile=1024:1024 --ulimit=nproc=4096:4096 \
    --entrypoint=python "$image" - < "$here/inventory.py" > "$staged/inventory.json"
mkdir -p "$(dirname -- "$1")"
"$python" "$here/sbom.py" "$staged/image.json" "$staged/inventory.json" "$1"
