# Segmentation for Grand Challenge: voxelcore and algorithm, no training code. docs/CONTAINER.md explains it.
#   docker build --platform=linux/amd64 --tag decathlon-unet .                          CPU
#   docker build --platform=linux/amd64 --build-arg TORCH=cuda --tag decathlon-unet .   GPU

FROM docker.io/library/debian:bookworm-20251229-slim AS python
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3 \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*

# pip lives beside the environment that it fills, so that the image ends up without it.
FROM python AS pip
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python3 -m venv /opt/pip && python3 -m venv --without-pip /opt/venv
WORKDIR /build

FROM pip AS dependencies
ARG TORCH=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# Another CUDA than that of PyPI's build, for older drivers: such as https://download.pytorch.org/whl/cu126
ARG TORCH_CUDA_INDEX
COPY requirements ./
# pip takes only wheels whose SHA-256 is listed, and refuses a list that lacks what a package on it needs. TORCH is
# checked before anything is downloaded.
RUN case "$TORCH" in cpu | cuda) ;; *) echo "TORCH must be cpu or cuda, got '$TORCH'" >&2; exit 1 ;; esac \
    && install="/opt/pip/bin/pip --python /opt/venv install --only-binary :all:" \
    && $install --require-hashes -r image.txt \
    && if [ "$TORCH" = cpu ]; then $install --require-hashes --extra-index-url "$TORCH_CPU_INDEX" -r torch-cpu.txt; \
    elif [ -z "$TORCH_CUDA_INDEX" ]; then $install --require-hashes -r torch-cuda.txt; \
    else version=$(sed -n 's/^torch==\([^ ]*\) .*/\1/p' torch-cuda.txt) \
        && $install --extra-index-url "$TORCH_CUDA_INDEX" "torch==$version+${TORCH_CUDA_INDEX##*/}"; \
    fi \
    && rm -r /opt/venv/lib/python3.11/site-packages/torch/include \
    && $install --require-hashes --no-deps -r alone.txt

FROM pip AS wheel
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY requirements/build.txt ./
RUN /opt/pip/bin/pip install --only-binary :all: --require-hashes -r build.txt
COPY . ./
# The command `decathlon` needs the training code, so its script is left out.
RUN PATH=/opt/pip/bin:$PATH pip wheel . --no-deps --no-build-isolation --wheel-dir dist \
        --config-settings=wheel.packages="voxelcore;algorithm" \
    && /opt/pip/bin/pip --python /opt/venv install --no-deps --target /hospital dist/*.whl \
    && rm -r /hospital/bin

FROM python
LABEL org.opencontainers.image.title="decathlon-unet" \
      org.opencontainers.image.description="Pancreas and tumour segmentation on CT. Research use; not a medical device." \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin algorithm \
    && install --directory --owner=algorithm --group=algorithm /input /output
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=wheel /hospital /opt/venv/lib/python3.11/site-packages
# tools/sbom.sh reads the wheels' hashes here.
COPY requirements /opt/algorithm/requirements
# HOME: the platform may choose a user that has none. NVIDIA_*: a host's NVIDIA runtime lends a GPU only on request.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /opt/algorithm
USER algorithm
ENTRYPOINT ["python", "-m", "algorithm"]
