"""Training, evaluation and replay of the methods of the table. See the README for the map of modules."""
