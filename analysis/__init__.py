"""From records to a verdict. Never imports torch, Ray, MLflow or another of the four packages."""
