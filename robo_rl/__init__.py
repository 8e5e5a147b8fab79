"""robo_rl: from logged data to a safety-filtered arm."""

import pathlib

__version__ = "0.1.0"

# In a source checkout `agents`, `envs`, `hardware` and `launch` lie beside this folder; in a wheel
# they lie inside it.
_here = pathlib.Path(__file__).resolve().parent
if not (_here / "agents").exists():
    __path__.append(str(_here.parent))
