"""Does the loss keep its promise? Trainings with and without it, judged on classes never seen in training."""
