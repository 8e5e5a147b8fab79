"""The simulated arm: in this process, or in its own behind the topics of ROS 2."""
