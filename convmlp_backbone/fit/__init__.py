"""From a folder of images and labels to a config that can be trained: ``convmlp fit``."""
