#!/bin/sh
# Builds the container image for linux/amd64.
#   tools/build.sh [--torch cpu|cuda] [--tag NAME] [--bundle FOLDER] [--from IMAGE]
# --bundle puts the weights of a model bundle into the image, or a folder of bundles, which is an ensemble; without it
# they are given at run time.
# --from starts from an image that was built before. ENGINE=docker or podman chooses the engine.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
. "$here/engine.sh"

torch=cpu tag=decathlon-unet bundle='' from=''
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail "$1 needs a value" 2
    case $1 in
        --torch) torch=$2 ;;
        --tag) tag=$2 ;;
        --bundle) bundle=$2 ;;
        --from) from=$2 ;;
        *) fail "no option is called $1; known are --torch, --tag, --bundle and --from" 2 ;;
    esac
    shift 2
done
[ -z "$bundle" ] || require_bundle "$bundle"

if [ -z "$from" ]; then
    from=$tag
    engine build --platform=linux/amd64 --build-arg=TORCH="$torch" --tag "$from" "$here/.."
fi
if [ -n "$bundle" ]; then
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    copy_bundle "$bundle" "$context/bundle"
    printf 'FROM %s\nCOPY bundle/ /opt/algorithm/bundle/\n' "$from" > "$context/Dockerfile"
    engine build --platform=linux/amd64 --pull=false --tag "$tag" "$context"
fi
