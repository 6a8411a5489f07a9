"""Hyperparameter search with Ray Tune; Ray is imported by the first search.

    search             tune_recipe: from the dataset to the best recipe
    plan               everything that affects the outcome, known before the first trial
    space, space_file  the values to try, and their YAML
    sampler            the values of each trial
    trial_resources    how the cluster is divided among the trials
    folder             the files of a search, and the tables of its trials
    trials             reports, events, record.jsonl, the table in memory, the ranking
    running            which trial is next, and what happens with each report
    folds              what a worker trains: one model per validation fold and seed
    ray/launch         starts Ray Tune; only the modules in ray/ import Ray
    ray/callbacks      what Ray Tune calls in the driver
    ray/group          a trial of several workers
    page, plots        search.html and its pictures
    final              after a search: trains the best recipe on all training clips

The path of one epoch of a trial:

    worker  TrialJob.train            trains it, sends the state to the StateStore
            tune.report               sends the EpochReport; called by run_trial, or for several
                                      workers by Ray Train, from ray.train.report in train_group
    driver  Reports.on_trial_result   reads the report, writes the state if there is time
            RunningSearch.on_report   turns the report into an event, Reported, and calls:
              Record.add                appends it to record.jsonl, from which a search resumes
              TrialTrackers.apply       passes it to the trackers of the recipe
              TrialTable.apply          updates the TrialRow
              Listener.on_update        shows all rows

Ray also passes the report to the scheduler, which may stop the trial. After its last epoch,
`Reports.on_trial_complete` calls `RunningSearch.on_end`, and the event Ended takes the same path.
"""

from sgnray.tune.final import final_settings, train_final
from sgnray.tune.search import TuneResult, tune_recipe
from sgnray.tune.trial_resources import TrialResources
from sgnray.tune.trials import TrialRow

__all__ = [
    "TrialResources",
    "TrialRow",
    "TuneResult",
    "final_settings",
    "train_final",
    "tune_recipe",
]
