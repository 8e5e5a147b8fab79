"""The Universal Robots UR5e with a Robotiq 2F-85."""
