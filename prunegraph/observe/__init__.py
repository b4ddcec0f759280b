"""Facts from running a model in ONNX Runtime."""
