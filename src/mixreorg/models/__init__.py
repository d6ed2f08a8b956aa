"""GroupViT's networks: layers, grouping blocks, the two encoders and their combination.

Shape legend used in the whole package: ``B`` images, ``M`` mixed images, ``K`` images mixed together, ``N`` patch
tokens, ``G`` group tokens, ``S`` segment tokens, ``D`` width, ``E`` joint embedding, ``L`` text length, ``C`` classes,
``T`` tokens of any sort, ``H W`` pixels, ``h w`` patch grid.
"""
