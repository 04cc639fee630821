# An oracle. From the repository's root:  docker build --file deploy/docker/oracle.Dockerfile --tag targon-oracle .
# Every package at its pinned version (constraints.txt); no key, password or wallet is in the image.
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /opt/targon
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY scripts/setup.py scripts/setup.py
COPY src src
# Another index, for a build of torch without CUDA say: --build-arg PIP_EXTRA_INDEX_URL=…
ARG PIP_EXTRA_INDEX_URL=""
RUN PIP_NO_CACHE_DIR=1 python scripts/setup.py run && rm -rf /root/.cache

FROM python:3.11.14-slim-bookworm
RUN groupadd --system --gid 10001 targon \
    && useradd --system --uid 10001 --gid targon --home-dir /var/lib/targon --create-home targon \
    && install --directory --owner targon --group targon --mode 0700 /var/cache/targon /var/lib/targon/wallets
COPY --from=build /opt/targon /opt/targon
COPY deploy/docker/entrypoint.sh deploy/docker/healthcheck.py /opt/targon/deploy/docker/
ENV PATH=/opt/targon/.venv/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/targon \
    TARGON_CACHE=/var/cache/targon \
    NUMBA_CACHE_DIR=/var/cache/targon/numba \
    BITTENSOR_RUNTIME_CACHE_DIR=/var/cache/targon/bittensor \
    TARGON_ROLE=oracle \
    TARGON_ORACLE__WALLET__PATH=/var/lib/targon/wallets \
    TARGON_ORACLE__DATA__PATH=/var/lib/targon/oracle \
    TARGON_ORACLE__AXON__IP=0.0.0.0 \
    TARGON_ORACLE__METRICS__PORT=9100
USER 10001:10001
WORKDIR /var/lib/targon
VOLUME ["/var/lib/targon", "/var/cache/targon"]
EXPOSE 8093
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=300s --retries=3 \
    CMD ["python", "/opt/targon/deploy/docker/healthcheck.py", "9100"]
ENTRYPOINT ["/opt/targon/deploy/docker/entrypoint.sh"]
