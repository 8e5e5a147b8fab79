"""Robots: contracts, guards, drivers, ROS bridges, recorder, policy runtime. Never imports JAX."""
