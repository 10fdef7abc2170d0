# NVIDIA's Triton with the options of every deployment, not as root. The model repository is a volume at /models, which
# `crosseai-serve deploy --watch` fills: until the champion is in it, the server lives, but is not ready.
ARG TRITON=26.08
FROM nvcr.io/nvidia/tritonserver:${TRITON}-py3

# What a volume at /models inherits when it is first used.
RUN install --directory --owner=1000 --group=1000 /models
USER 1000:1000
EXPOSE 8000 8001 8002
HEALTHCHECK --start-period=60s \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8000/v2/models/crosseai/ready"]
ENTRYPOINT ["/opt/nvidia/nvidia_entrypoint.sh", "tritonserver", "--model-repository=/models", \
    "--model-control-mode=explicit", "--disable-auto-complete-config", "--load-model=crosseai", "--exit-on-error=false"]
