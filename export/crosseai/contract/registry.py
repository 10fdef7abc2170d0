"""What trainer, exporter and server agree on about the MLflow store that lies between them."""

DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
"""Where runs and models are kept unless ``MLFLOW_TRACKING_URI`` says otherwise: a file in the working folder."""

ONNX_SHA256_TAG = "onnx_sha256"
"""Tag of a registered version: SHA-256 of its ``model.onnx``."""
