"""Remember: generate, judge, admit to the memory bank."""
