"""The online loop: who acts, where, what is kept, and the loop over them."""

from robo_rl.learn.online.loop import OnlineLoop, finetune, start_state

__all__ = ["OnlineLoop", "finetune", "start_state"]
