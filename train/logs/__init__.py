"""What a run says while it trains: rows of metrics, trackers, the line of progress."""
