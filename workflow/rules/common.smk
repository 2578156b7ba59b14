# The validated study, and where its files lie. No rule and no formula in this file.
import json
import os
from pathlib import Path

from snakemake.exceptions import WorkflowError
from workflow.outdated import (
    outdated_evaluations,
    outdated_runs,
    outdated_text,
    passed_milestones,
    passed_text,
    trained_milestones,
    unnamed_runs,
    unnamed_text,
)
from workflow.resources import device, memory_mb, processes
from workflow.study import (
    StudyError,
    changed_settings,
    check_files,
    cleared,
    load,
    sources,
    trained_with,
)

CODE = Path(str(workflow.current_basedir)).resolve().parents[1]
# `python -m agents.train` finds the packages also where the job's working directory is another one.
os.environ.update(
    PYTHONPATH=os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
)

try:
    check_files(map(Path, workflow.configfiles))
    STUDY = load(cleared(config, workflow.config_settings.config or {}), CODE)
except StudyError as error:
    raise WorkflowError(str(error))

RESULTS = f"results/{STUDY['study']}"
LOGS = f"{RESULTS}/logs"
RUN = f"{RESULTS}/runs/{{method}}/{{game}}/{{seed}}"
EVALUATION = f"{RUN}/evaluation/{{milestone}}"
REFERENCE = sorted(str(p.relative_to(CODE)) for p in CODE.glob("analysis/reference/*.csv"))


wildcard_constraints:
    method="[a-z0-9_]+",
    game="[a-z0-9_]+",
    seed="[0-9]+",
    milestone="[0-9]+",


def of_study(pattern):
    """Every file of this pattern that the study needs."""
    return expand(
        pattern,
        method=STUDY["methods"],
        game=STUDY["games"],
        seed=STUDY["seeds"],
        milestone=STUDY["milestones_frames"],
    )


# Before anything starts: Snakemake deletes the record of a run before the training refuses.
if PASSED := passed_milestones(STUDY, Path(RESULTS), CODE):
    raise WorkflowError(passed_text(Path(RESULTS), PASSED))
OUTDATED = outdated_runs(STUDY, Path(RESULTS), CODE)
TRAINED_MILESTONES = trained_milestones(STUDY, Path(RESULTS), OUTDATED)
OUTDATED_EVALUATIONS = outdated_evaluations(STUDY, Path(RESULTS))
if OUTDATED or OUTDATED_EVALUATIONS:
    logger.warning(outdated_text(Path(RESULTS), OUTDATED, OUTDATED_EVALUATIONS))
if UNNAMED := unnamed_runs(STUDY, Path(RESULTS)):
    logger.warning(unnamed_text(Path(RESULTS), UNNAMED))


onerror:
    print(
        f"Trainings that were stopped or failed continue from their last resume state with the same command. Output: {LOGS};"
        f" progress: python -m analysis.status {RESULTS}"
    )


def milestones(wildcards):
    """Those of the study, or of a run that has them all: one fewer in the study trains nothing again."""
    run = wildcards.method, wildcards.game, int(wildcards.seed)
    return TRAINED_MILESTONES.get(run, STUDY["milestones_frames"])


def method_file(wildcards):
    """Its date counts only for a run with other values than its own: `params` know nothing of a restored one."""
    file = f"config/methods/{wildcards.method}.yaml"
    run = wildcards.method, wildcards.game, int(wildcards.seed)
    return file if run in OUTDATED else ancient(file)
