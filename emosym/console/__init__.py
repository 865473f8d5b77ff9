"""What every command line uses: entry, shared options, devices, output, tables, progress."""
