"""Segmentation: photos and class names in, label maps, scores and pictures out. Contains no mixing.

Files import only files listed above them: ``photos``, ``palette``, ``drawing``, ``protocol``, ``presence``,
``calibration``, ``background``, ``exchange``, ``results``, ``request``, ``resize``, ``refinement``, ``class_maps``,
``window_plan``, ``sliding_window``, ``background_sweep``, ``segment_merging``, ``phrase_memory``, ``segmenter``,
``explain``, ``explain_picture``.
"""
