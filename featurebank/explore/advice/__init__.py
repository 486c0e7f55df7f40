"""What to do with a bank: the probe of its layers, the verdict and the commands it leads to."""
