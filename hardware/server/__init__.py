"""The robot process, its wire and its clients."""
