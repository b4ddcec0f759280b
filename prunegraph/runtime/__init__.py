"""The one door to ONNX Runtime: sessions, execution providers, inputs with their roles, trial sizes."""
