"""Segmentation: photos and class names in, label maps, scores and pictures out. Contains no mixing.

Files import only files listed above them: ``photos``, ``palette``, ``drawing``, ``protocol``, ``exchange``,
``results``, ``resize``, ``class_maps``, ``window_plan``, ``sliding_window``, ``background_sweep``, ``segmenter``.
"""
