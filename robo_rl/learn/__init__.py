"""The offline, online and evaluation loops that serve every agent."""
