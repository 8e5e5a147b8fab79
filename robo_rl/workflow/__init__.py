"""The library's verbs over all rooms; `robo_rl` re-exports them."""
