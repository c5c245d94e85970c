"""From a trial's records to its outcome."""
