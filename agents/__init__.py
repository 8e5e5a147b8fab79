"""Learning methods, one file of pure functions each."""
