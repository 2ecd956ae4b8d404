"""The search, read as the method's table of contents. Each stage is a chapter of its own in this folder.

Every stage asks the study for what it has before it measures anything, so a search that was killed
is taken up by running it again.
"""

from __future__ import annotations

from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.search.attribute import attribute
from autotune.search.calibrate import calibrate
from autotune.search.confirm import confirm
from autotune.search.explore import explore_learning, explore_system
from autotune.search.race import race
from autotune.search.recommend import recommend


def run_search(lab: Lab) -> Recommendation:
    """Search the lab's study to its end, from wherever it stands, and conclude.

    Raises:
        NothingFeasible: not even the baseline can be trained here.
    """
    calibration = calibrate(lab)  #                       noise floor, baseline curve, hand-tuned default
    system = explore_system(lab, calibration)  #          speed alone: seconds a trial
    finalists = explore_learning(lab, calibration, system)  # complete schedules: cost to equal quality
    winner = race(lab, calibration, finalists)  #         the best of a few, in fresh processes
    claim = confirm(lab, calibration, winner)  #          fresh seeds: the only figures reported
    attribute(lab, calibration, claim)  #                 what of it is worth its complexity
    return recommend(lab, calibration)
