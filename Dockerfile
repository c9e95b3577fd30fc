# The environment of every run: the lock file upon a base that has Python 3.11 to 3.13 and git. `make docker` builds it.
#
#   BASE_IMAGE    its one home is here; apptainer.def and the scripts read it from this file
#   TORCH         cpu or cuda
#   WHEELHOUSE    a folder of wheels (`make wheelhouse`); the build then needs no network
#
# Free of what only BuildKit understands. Arguments end in the image's history, so nothing confidential may be one.
ARG BASE_IMAGE=docker.io/library/python:3.11-bookworm

FROM ${BASE_IMAGE} AS environment
ARG TORCH=cpu
ARG WHEELHOUSE=requirements
WORKDIR /opt/assay
COPY pyproject.toml ./
COPY requirements requirements/
COPY scripts/install.sh scripts/image.sh scripts/
COPY src/assay/__init__.py src/assay/
COPY ${WHEELHOUSE} /wheelhouse/
RUN scripts/image.sh install /wheelhouse

FROM environment AS code
COPY src src/
RUN scripts/image.sh seal

FROM ${BASE_IMAGE}
COPY --from=environment /opt/assay/env /opt/assay/env/
COPY --from=code /opt/assay/src /opt/assay/src/
COPY --from=code /opt/assay/content.txt /opt/assay/
ARG COMMIT=unknown
ARG LOCK=unknown
ARG TORCH=cpu
LABEL org.opencontainers.image.title="assay" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${COMMIT}" \
      assay.lock="${LOCK}" \
      assay.torch="${TORCH}"
# A run has its caller's number, which has no name and no home here; git looks for the owner of a repository.
ENV PATH=/opt/assay/env/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp USER=assay LOGNAME=assay LANG=C.UTF-8 \
    GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0=*
USER 65534:65534
WORKDIR /tmp
CMD ["assay", "--help"]
