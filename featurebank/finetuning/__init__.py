"""Fine-tuning: the upper blocks of a network trained from activations that lie in the bank, or from live images."""
