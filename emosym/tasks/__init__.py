"""Tasks: questions about images, and how their answers are parsed, rewarded and scored."""
