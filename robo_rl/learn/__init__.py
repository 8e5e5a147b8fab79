"""The loops: offline, online and evaluation. They know the contract of agents, and no agent."""
