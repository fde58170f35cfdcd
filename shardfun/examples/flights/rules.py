"""The numbers that decide, shared by the application and the plain program so that they can only differ in logic.

Plain constants: the plain program must not need anything of shardfun.
"""

ROTATION_BREAK_MINUTES = 18 * 60
"""An aircraft that leaves New York this long after its previous departure starts a new rotation."""

LATE_ROTATION_MINUTES = 120
"""A rotation whose accumulated delay has reached this is reported as late."""

QUESTIONED_DELAY_MINUTES = 60
"""A carrier asks the aircraft why, if a leg departs this late."""
