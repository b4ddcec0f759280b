"""Import and export: how models come in (ONNX, graphsurgeon, PyTorch, Hugging Face) and how results go out."""
