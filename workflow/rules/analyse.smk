# From episodes to the report: pure, seeded functions of the files of the runs. Each rule has the code it
# runs as an input, so edited analysis code redoes the analysis and nothing else.

FIGURES = [  # as in analysis/figures.py
    "learning_curves",
    "learning_curves_hours",
    "learning_curves_normalised",
    "interval_estimates",
    "performance_profiles",
    "probability_of_improvement",
    "per_game",
]
if set(STUDY["methods"]) == {"random"}:
    FIGURES = [name for name in FIGURES if not name.startswith("learning_curves")]
if len(STUDY["methods"]) + len(STUDY.get("external", {})) == 1:
    FIGURES.remove("probability_of_improvement")


rule study_json:
    input:
        methods=expand("config/methods/{method}.yaml", method=STUDY["methods"]),
        code="workflow/study.py",
    output:
        study=f"{RESULTS}/study.json",
    log:
        f"{LOGS}/study_json.log",
    priority: 100  # first: the status command reads it while runs are training
    localrule: True
    conda:
        "../../environment.yml"
    params:
        study=lambda wildcards: json.dumps(STUDY),  # a function: braces stay what they are
    shell:
        "python -m workflow.study --study {params.study:q} --out {output.study} > {log} 2>&1"


rule collect:
    input:
        of_study(rules.train_run.output.run),
        of_study(rules.train_run.output.episodes),
        of_study(rules.evaluate_run.output.episodes),
        of_study(rules.evaluate_run.output.audit),
        study=rules.study_json.output.study,
        games="config/games.csv",
        code=sources("analysis.collect", CODE),
    output:
        episodes=f"{RESULTS}/episodes.csv",
        runs=f"{RESULTS}/runs.csv",
        missing=f"{RESULTS}/missing.csv",
    log:
        f"{LOGS}/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=subpath(input.study, parent=True),
    shell:
        "python -m analysis.collect --results {params.results} > {log} 2>&1"


rule aggregate:
    input:
        collected=rules.collect.output,
        study=rules.study_json.output.study,
        reference=REFERENCE,
        code=sources("analysis.aggregate", CODE),
    output:
        f"{RESULTS}/aggregates.csv",
    log:
        f"{LOGS}/aggregate.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=subpath(input.study, parent=True),
    shell:
        "python -m analysis.aggregate --results {params.results} > {log} 2>&1"


rule tables:
    input:
        collected=rules.collect.output,
        aggregates=rules.aggregate.output,
        study=rules.study_json.output.study,
        reference=REFERENCE,
        code=sources("analysis.tables", CODE),
    output:
        table1=multiext(f"{RESULTS}/tables/table1", ".csv", ".md", ".tex", ".html"),
        summary=f"{RESULTS}/tables/summary.md",
        games=multiext(f"{RESULTS}/tables/games", ".csv", ".md"),
    log:
        f"{LOGS}/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=subpath(input.study, parent=True),
    shell:
        "python -m analysis.tables --results {params.results} > {log} 2>&1"


rule plots:
    input:
        of_study(rules.train_run.output.episodes),
        collected=rules.collect.output,
        aggregates=rules.aggregate.output,
        study=rules.study_json.output.study,
        reference=REFERENCE,
        code=sources("analysis.plots", CODE),
    output:
        expand(f"{RESULTS}/figures/{{figure}}.{{ending}}", figure=FIGURES, ending=["svg", "png"]),
    log:
        f"{LOGS}/plots.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=subpath(input.study, parent=True),
    shell:
        "python -m analysis.plots --results {params.results} > {log} 2>&1"


rule report:
    input:
        collected=rules.collect.output,
        aggregates=rules.aggregate.output,
        tables=rules.tables.output,
        figures=rules.plots.output,
        study=rules.study_json.output.study,
        reference=REFERENCE,
        code=sources("analysis.report", CODE),
    output:
        f"{RESULTS}/report.html",
    log:
        f"{LOGS}/report.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=subpath(input.study, parent=True),
    shell:
        "python -m analysis.report --results {params.results} > {log} 2>&1"
