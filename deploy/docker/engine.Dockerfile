# vLLM with the protocol sampler. From the repository's root:
#   docker build --file deploy/docker/engine.Dockerfile --tag targon-engine .
ARG VLLM_TAG=v0.32.0
FROM vllm/vllm-openai:${VLLM_TAG}
COPY constraints.txt /opt/targon/
COPY src /opt/targon/src
# The plugin needs these two besides what vLLM brings.
RUN grep -E '^(rfc8785|structlog)==' /opt/targon/constraints.txt > /opt/targon/plugin.txt \
    && python3 -m pip install --no-cache-dir --no-deps -r /opt/targon/plugin.txt
ENV PYTHONPATH=/opt/targon/src
