# Runs on a laptop, a GPU machine or a cluster: README.md. `snakemake -n` shows what would be done.
from snakemake.utils import min_version

# Older versions do not read profile.yaml.
min_version("9.19")

# Snakemake merges --configfile into the default one: overrides of `demo` would leak into other studies.
if not workflow.overwrite_configfiles:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/published.smk"
include: "workflow/rules/analyse.smk"


rule all:
    default_target: True
    input:
        rules.published.output,
        rules.evaluate.input,
        rules.report.output,
    localrule: True


onsuccess:
    targets = workflow.dag_settings.targets
    if not targets or set(targets) & {"all", "report"}:
        print(f"Table: {RESULTS}/tables/summary.md; report: {rules.report.output[0]}")
