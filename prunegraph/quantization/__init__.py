"""Fewer bits for a model that is already slim: `onnxruntime.quantization`, checked against the float model."""
