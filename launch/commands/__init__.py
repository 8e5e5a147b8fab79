"""The commands of `robo-rl`, a file each."""
