"""Tasks: the questions that are asked about images, and how their answers are read and scored."""
