"""Models as ONNX and OpenVINO files, and segmentation with them where no torch is installed.

``graphs``, ``quantise``, ``openvino_files`` and ``exporter`` make the files and need torch. ``manifest``, ``decoding``,
``backends`` and ``runtime`` read them and do not.
"""
