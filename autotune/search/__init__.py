"""The search: `run_search` is the method's table of contents. Each stage is a module in this folder.

Every stage reuses the results that the study already has, so running a killed search again resumes it.
"""

from __future__ import annotations

from autotune.analysis.recommendation import Recommendation
from autotune.measure.lab import Lab
from autotune.search.attribute import attribute
from autotune.search.calibrate import calibrate
from autotune.search.confirm import confirm
from autotune.search.explore import explore_system
from autotune.search.ladder import explore_learning, finalists_of
from autotune.search.race import race
from autotune.search.recommend import recommend


def run_search(lab: Lab) -> Recommendation:
    """Run the remaining stages of the lab's study, and conclude.

    Raises:
        NothingFeasible: not even the baseline can be trained here.
    """
    calibration = calibrate(lab)  #                       noise floor, baseline curve, cap on the search
    system = explore_system(lab, calibration)  #          speed alone: seconds a trial
    learned = explore_learning(lab, calibration, system)  # a ladder of token budgets: what is best at the plan's
    calibration = calibrate(lab)  #                       the same, with the losses of longer trials
    winner = race(lab, calibration, finalists_of(lab, calibration, system, learned))  # in fresh processes
    claim = confirm(lab, calibration, winner)  #          fresh seeds: the only figures claimed
    attribute(lab, calibration, claim)  #                 which techniques are worth their complexity
    return recommend(lab, calibration)
