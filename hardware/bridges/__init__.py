"""Ways to a robot: ROS 2 over native DDS, without a ROS installation."""
