"""Training, evaluation and replay of the methods of the table; the README has the map."""
