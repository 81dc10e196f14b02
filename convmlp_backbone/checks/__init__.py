"""What is wrong with a config, images and annotations, told before a training."""
