"""Export of whole models, each proven to predict what its toolbox predicts before it is written.

``models`` are the models as modules from images to tensors, in ``detection``'s operators; ``facts``
what a file says of itself; ``files`` the formats; ``agreement`` the proof; ``evaluation`` a file in
place of a model in a toolbox's evaluation. ``runtime`` beside this package runs the files.
"""
