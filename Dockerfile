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

# A stage of its own, so that only an edit of the requirements installs them again.
FROM python AS requirements
COPY pyproject.toml /
RUN mkdir /requirements \
    && python3 -c "import tomllib; project = tomllib.load(open('/pyproject.toml', 'rb'))['project']; \
        extras = project['optional-dependencies']; \
        print(*project['dependencies'], *extras['algorithm'], *(name for name in extras['openvino'] if name.startswith('openvino')), sep='\n')" > /all.txt \
    && grep -vE '^(evalutils|openvino)' /all.txt > /requirements/common.txt \
    && grep -E '^(evalutils|openvino)' /all.txt > /requirements/alone.txt

FROM pip AS dependencies
ARG TORCH=cpu
ARG TORCH_CPU_INDEX=https://download.pytorch.org/whl/cpu
# Another CUDA than that of PyPI's build, for older drivers: such as https://download.pytorch.org/whl/cu126
ARG TORCH_CUDA_INDEX
COPY constraints.txt ./
# "===" asks for the version of PyPI, which is the CUDA build, and not for a local "+cpu" build of it.
RUN version=$(sed -n 's/^torch==//p' constraints.txt) \
    && case "$TORCH" in \
        cpu) set -- --extra-index-url "$TORCH_CPU_INDEX" "torch==$version+cpu" ;; \
        cuda) if [ -z "$TORCH_CUDA_INDEX" ]; then set -- "torch===$version"; \
            else set -- --extra-index-url "$TORCH_CUDA_INDEX" "torch==$version+${TORCH_CUDA_INDEX##*/}"; fi ;; \
        *) echo "TORCH must be cpu or cuda, got '$TORCH'" >&2; exit 1 ;; \
    esac \
    && /opt/pip/bin/pip --python /opt/venv install --no-deps "$@" \
    && rm -r /opt/venv/lib/python3.11/site-packages/torch/include
# evalutils also declares the packages of its project generator (cookiecutter, pip-tools); named here are those
# that its SegmentationAlgorithm imports. openvino also declares one that reports its use to its makers.
COPY --from=requirements /requirements ./
RUN /opt/pip/bin/pip --python /opt/venv install -c constraints.txt -r common.txt imageio pandas scikit-learn scipy \
    && /opt/pip/bin/pip --python /opt/venv install --no-deps -c constraints.txt -r alone.txt

FROM pip AS wheel
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends g++ python3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY constraints.txt ./
RUN /opt/pip/bin/pip install -c constraints.txt cmake ninja pybind11 scikit-build-core
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
