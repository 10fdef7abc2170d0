# Two images: `--target client` scores, `--target agent` deploys models (and has MLflow's server). Build them at the root
# of the checkout. Compilers stay behind in the first stages.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS source
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY CMakeLists.txt LICENSE README.md constraints.txt pyproject.toml ./
COPY client client
COPY export export
COPY postproc_ext postproc_ext
COPY training training
COPY triton_models triton_models
RUN python -m venv /opt/crosseai
ENV PATH=/opt/crosseai/bin:$PATH

FROM source AS client-environment
RUN pip install --no-cache-dir --constraint constraints.txt '.[client]'

FROM source AS agent-environment
RUN pip install --no-cache-dir --constraint constraints.txt '.[serve]'

# What both images have in common. /tmp is the only place that they write to beside their volumes.
FROM python:${PYTHON}-slim AS runtime
RUN useradd --uid 1000 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin crosseai \
    && install --directory --owner=1000 --group=1000 /images /mlflow /models /results
ENV PATH=/opt/crosseai/bin:$PATH HOME=/tmp MPLCONFIGDIR=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 1000:1000

FROM runtime AS agent
COPY --from=agent-environment /opt/crosseai /opt/crosseai
ENTRYPOINT ["crosseai-serve"]
CMD ["deploy", "--watch", "--repository", "/models", "--server", "127.0.0.1:8001"]

FROM runtime AS client
COPY --from=client-environment /opt/crosseai /opt/crosseai
ENTRYPOINT ["crosseai-client"]
CMD ["doctor"]
