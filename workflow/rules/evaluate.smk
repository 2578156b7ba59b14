# The policies kept at the milestones play. An evaluation counts only when its episodes can be replayed
# from their traces, so the audit is a part of it. Always on the CPU: sampled actions depend on the
# device, and many evaluations side by side would crowd a GPU.


rule evaluate_run:
    input:
        run=rules.train_run.output.run,
    output:
        episodes=f"{EVALUATION}/episodes.csv",
        traces=f"{EVALUATION}/traces.npz",
        audit=f"{EVALUATION}/audit.txt",
    log:
        f"{LOGS}/evaluate/{{method}}/{{game}}/{{seed}}/{{milestone}}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=2000,
    params:
        **STUDY["evaluation"],
        run=subpath(input.run, parent=True),
        out=subpath(output.episodes, parent=True),
    shell:
        "python -m agents.evaluate --run {params.run} --milestone-frames {wildcards.milestone}"
        " --episodes {params.episodes} --action-selection {params.action_selection}"
        " --seed {params.seed} --device cpu --out {params.out} > {log} 2>&1"
        " && python -m agents.audit {params.out} > {output.audit} 2>> {log}"


rule evaluate:
    input:
        of_study(rules.evaluate_run.output.episodes),
        of_study(rules.evaluate_run.output.audit),
        study=f"{RESULTS}/study.json",
    localrule: True
