"""Several tasks from one bank: their rows, a network whose hidden layer they share, and one predictor of all."""
