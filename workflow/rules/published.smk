# Table 1 of Mnih et al. 2016, recomputed from the published raw scores. Trains nothing.


rule published:
    input:
        scores=REFERENCE,
        games="config/games.csv",
        code=sources("analysis.published", CODE),
    output:
        multiext("results/reference/rules", ".csv", ".md"),
        "results/reference/table1.md",
        table1="results/reference/table1.csv",
    log:
        "results/logs/published.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        out=subpath(output.table1, parent=True),
    shell:
        "python -m analysis.published --out {params.out} > {log} 2>&1"
