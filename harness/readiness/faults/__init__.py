"""Break a running target on purpose and see whether it keeps its promises.

A scenario (`checks/faults/<name>.yaml`, read by `scenario.py`) names what is built and broken; an act (`act.py`, one
class a file family in `acts/`) is how; `engine.py` plays one scenario; `history.py` writes down what is seen from
outside; `checkers.py` judges it.
"""
