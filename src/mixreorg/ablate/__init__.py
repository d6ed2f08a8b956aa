"""Ablations: a grid of training runs, each in its own process, measured alike and reported with their spread.

Files import only files listed above them: ``spec``, ``grid``, ``worlds``, ``measuring``, ``accounts``, ``queue``,
``status``, ``results``, ``statistics``, ``collect``, ``join``, ``tables``, ``figures``, ``report``, ``run``.
"""
