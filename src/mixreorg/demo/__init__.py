"""The end-to-end demonstration: scenes, a small model trained on captions, its evaluation, one HTML page.

Files import only files listed above them: ``colors``, ``curves``, ``pictures``, ``page``, ``run``.
"""
