"""METRICS: how samples are judged, one file a metric, the protocol in its name."""
