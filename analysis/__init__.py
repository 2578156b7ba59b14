"""Tables, intervals, figures and the report: pure, seeded functions of the files in `results/`."""
