# One image for every role: `sidecar bootstrap`, `netfilter`, `run`, `fence check` (docs/image.md).
# Debian 13 with Python 3.13 and pip; a digest may be given, as python:3.13-slim-trixie@sha256:...
ARG BASE_IMAGE=docker.io/library/python:3.13-slim-trixie

# ---- the virtual environment, from the requirements with their hashes ----
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS build
# Versions of Debian's packages are those of the base's release: pinned, they would vanish with its next point release.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends binutils && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY requirements.lock deploy/image/strip.py ./
# An index of one's own comes as the secret pip_conf, and doesn't stay in any layer. The bytecode is compiled here, for
# the root is read-only where it runs; unchecked, since nothing changes there.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3.13 -m venv --without-pip /opt/egress && \
    python3.13 -m pip --python /opt/egress/bin/python install --no-cache-dir --no-compile --only-binary :all: \
      --require-hashes -r requirements.lock && \
    /opt/egress/bin/python strip.py /opt/egress && \
    /opt/egress/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/egress/lib
COPY pyproject.toml README.md LICENSE ./
COPY sidecar sidecar
COPY addons addons
RUN python3.13 -m pip --python /opt/egress/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
      --no-build-isolation . && \
    python3.13 -m pip --python /opt/egress/bin/python uninstall --yes setuptools && \
    /opt/egress/bin/python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
      /opt/egress/lib/python3.13/site-packages/sidecar /opt/egress/lib/python3.13/site-packages/addons

# ---- what it consists of, as CycloneDX ----
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS sbom
COPY --from=build /opt/egress /opt/egress
COPY deploy/image/sbom.lock pyproject.toml /build/
WORKDIR /build
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3.13 -m venv --without-pip /opt/cyclonedx && \
    python3.13 -m pip --python /opt/cyclonedx/bin/python install --no-cache-dir --only-binary :all: \
      --require-hashes -r sbom.lock && \
    /opt/cyclonedx/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
      --output-reproducible --of JSON -o sbom.cdx.json /opt/egress/bin/python

# ---- Debian, without what only builds, installs or logs in ----
# hadolint ignore=DL3006
FROM ${BASE_IMAGE} AS root
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends iproute2 nftables && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/egress /opt/egress
COPY --from=sbom /build/sbom.cdx.json /usr/share/egress-sidecar/sbom.cdx.json
COPY LICENSE /usr/share/egress-sidecar/LICENSE
# Volumes that start empty take owner and mode from these folders, with Docker and Podman.
RUN groupadd --gid 14137 egress && \
    useradd --uid 14137 --gid 14137 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin egress && \
    install -d -o 14137 -g 14137 -m 0700 /run/egress/ca && \
    install -d -o 14137 -g 14137 -m 0750 /run/egress/control && \
    install -d -o 14137 -g 14137 -m 0755 /etc/egress/trust && \
    install -d -m 0755 /etc/egress/policy
COPY deploy/image/slim.py /build/
# The last command in here: afterwards there is no shell.
RUN ["/opt/egress/bin/python", "/build/slim.py"]

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=
ARG CREATED=
LABEL org.opencontainers.image.title="egress-sidecar" \
      org.opencontainers.image.description="Everything that leaves a pod goes through it: intercepted, decided, recorded." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# Whole, since that is the point: one layer, without what the layers below have lost.
# hadolint ignore=DL3067
COPY --from=root / /
ENV PATH=/opt/egress/bin:/usr/local/bin:/usr/sbin:/usr/bin \
    LANG=C.UTF-8 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /
# A number, so that Kubernetes' runAsNonRoot can tell; `netfilter` alone is run as root, with NET_ADMIN only.
USER 14137:14137
ENTRYPOINT ["sidecar"]
