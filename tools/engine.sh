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

# The files of the model bundle in folder $1; those of a coarse pass are there or not.
bundle_files() {
    echo model.json model.safetensors
    for coarse in coarse.json coarse.safetensors; do
        [ ! -f "$1/$coarse" ] || echo "$coarse"
    done
}
