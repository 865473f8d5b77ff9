"""What every command line uses: error handling, terminal output, tables, progress."""
