"""The online loop: who acts, where, what is kept, and the loop over them."""

from robo_rl.learn.online.loop import OnlineAgent, OnlineLoop, finetune, start_state

__all__ = ["OnlineAgent", "OnlineLoop", "finetune", "start_state"]
