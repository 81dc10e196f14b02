"""Images of any size: predicted tile by tile, with the result of the whole image.

``reach`` measures how far a network sees, ``grid`` cuts an image into tiles that overlap by as
much, ``reading`` and ``resizing`` give their pixels, ``networks`` what is found in one,
``suppress`` and ``results`` put them together, ``job`` goes through them, and goes on where it was
interrupted, ``memory`` tells what fits.
"""
