"""The past once more: what was accepted is mapped again in a scratch world, by today's code and settings.

Rules:
- A scratch world is made of the core alone. The state of no household changes by a replay.
- Its time is that of the past: messages come in the order of acceptance with the receipt they had, ticks where the
  clock room had them. So a store that nobody touched is remade without a difference, whatever crashed in between.
- What waits, is parked, dead or given up is left out: it is the worker's, the directory's or the operator's turn.
- What needs something that the store has deleted for its age is uncertain: it is told, and not sent. A household whose
  first messages are gone begins with a copy of its state (`trust`); there is one for every six hours (`clock`).
- Nothing leaves for a device that is not there any more (M5.7), nor for a building of which nothing is known.
- What leaves takes the historical lane, whatever its age (M5.10): nobody gets advice about the past.

Theory of operation: the inbox has no order of households, so a first pass notes which messages belong together
(`clusters`: households that share a user, or a device that moved). Then one cluster after the other is remade
(`remake`: a `World`, and the `Trust` in what comes out of it); memory holds the messages of one cluster and a few
bytes for every other one. `differences` compares with the outbox, `explain` takes one value apart.

Rooms: `world`, `clusters`, `trust`, `remake`, `differences`, `explain`, and `anatomy` of one slot.
"""

from bridge.replay.differences import Difference, Span, Tally, replay
from bridge.replay.explain import Question, asked_for, explain_device, explain_value, whereabouts

__all__ = [
    "Difference",
    "Question",
    "Span",
    "Tally",
    "asked_for",
    "explain_device",
    "explain_value",
    "replay",
    "whereabouts",
]
