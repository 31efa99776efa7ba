# shellcheck shell=sh
# Sourced by the scripts beside it: ENGINE is docker or podman, the one that answers unless the caller chose.
if [ -z "${ENGINE:-}" ]; then
    for candidate in docker podman; do
        if command -v "$candidate" > /dev/null && "$candidate" info > /dev/null 2>&1; then
            ENGINE=$candidate
            break
        fi
    done
fi
if [ -z "${ENGINE:-}" ]; then
    echo "${0##*/}: neither docker nor podman answers; start one, or name another in ENGINE" >&2
    exit 1
fi

# podman's default runtime, crun, fails in some virtual machines where runc works.
engine() { "$ENGINE" "$@"; }
if [ "${ENGINE##*/}" = podman ] && command -v runc > /dev/null; then
    engine() { "$ENGINE" --runtime runc "$@"; }
fi

fail() {
    echo "${0##*/}: $1" >&2
    exit "${2:-1}"
}

# Ends the script unless folder $1 is a model bundle, or holds those of an ensemble.
require_bundle() {
    [ ! -f "$1/model.json" ] || return 0
    for member in "$1"/*/; do
        [ -f "$member/model.json" ] || fail "$1 is no model bundle, it has no model.json, and holds not only bundles"
    done
}

# Copies the bundle or bundles in folder $1 into the folder $2, readable for all; files of a coarse pass are there or not.
copy_bundle() {
    mkdir -p "$2"
    if [ -f "$1/model.json" ]; then
        for file in model.json model.safetensors coarse.json coarse.safetensors; do
            case $file in coarse.*) [ -f "$1/$file" ] || continue ;; esac
            cp "$1/$file" "$2/$file"
        done
    else
        for member in "$1"/*/; do copy_bundle "${member%/}" "$2/$(basename "$member")"; done
    fi
    chmod -R a+rX "$2"
}
