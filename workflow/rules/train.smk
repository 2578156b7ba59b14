# One training run = one method, one game, one seed. The resume state lies in the run's folder and is
# not declared: Snakemake deletes declared outputs of a failed job. The log is outside for the same reason;
# Snakemake deletes it before a job too, so that it is the last attempt's. resume/attempts.log has a line on each.


rule train_run:
    input:
        # Its values are in `params`: a comment, a checkout or a restored study trains nothing again.
        method=method_file,
    output:
        run=f"{RUN}/run.json",
        episodes=f"{RUN}/training_episodes.csv",
    log:
        f"{LOGS}/train/{{method}}/{{game}}/{{seed}}.log",
    conda:
        "../../environment.yml"
    # One core a run: --cores N trains N runs side by side; A3C takes a core for each worker, or all
    # there are. With fewer runs than cores, --set-threads train_run=N gives each N.
    threads: lambda wildcards: processes(STUDY, wildcards.method, CODE)
    # Where and how it runs; a change here trains nothing again.
    resources:
        mem_mb=lambda wildcards: memory_mb(STUDY, wildcards.method, CODE),
        gpu=lambda wildcards: int(device(STUDY, wildcards.method, CODE) == "cuda"),
        device=lambda wildcards: device(STUDY, wildcards.method, CODE),
        checkpoint_seconds=STUDY["checkpoint_seconds"],
    # Only what makes it another run: a change here trains again.
    params:
        settings=lambda wildcards: json.dumps(changed_settings(STUDY, wildcards.method, CODE)),
        trained_with=lambda wildcards: json.dumps(
            trained_with(STUDY, wildcards.method, CODE), sort_keys=True
        ),
        milestones=milestones,
        protocol=STUDY["protocol"],
        out=subpath(output.run, parent=True),
    shell:
        "python -m agents.train --method {input.method} --game {wildcards.game}"
        " --seed {wildcards.seed} --milestones-frames {params.milestones}"
        " --protocol {params.protocol} --device {resources.device}"
        " --threads {threads} --checkpoint-seconds {resources.checkpoint_seconds}"
        " --set {params.settings:q} --out {params.out} > {log} 2>&1"


rule train:
    input:
        of_study(rules.train_run.output.run),
        study=f"{RESULTS}/study.json",  # the status command reads it
    localrule: True
