"""What a command passes on its way to the arm: admission, shaping, barrier, the one writer."""
