# docker build --build-arg EXTRA=tpu --tag IMAGE .      docs/launch.md says more.
FROM python:3.12-slim-bookworm

# cpu, tpu or cuda13
ARG EXTRA=cpu
# Who runs it.
ARG USER=vpt

# tini hands SIGTERM on, also while Python has no handler yet: to process 1 the kernel
# would not deliver it then. Debian has one version of it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home vpt
WORKDIR /home/vpt/vpt_jax
COPY requirements.txt .
RUN case "$EXTRA" in cpu | tpu | cuda13) ;; \
      *) echo "error: EXTRA=$EXTRA must be cpu, tpu or cuda13" >&2; exit 2 ;; esac \
    && pip install --no-cache-dir --requirement requirements.txt "jax[$EXTRA]"
COPY . .
RUN pip install --no-cache-dir --constraint requirements.txt '.[gcs]' && chown vpt .

USER $USER
ENTRYPOINT ["tini", "--"]
CMD ["python", "launch.py", "--helpshort"]
