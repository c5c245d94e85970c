"""From records to a verdict. Never imports torch, ray or trainables."""
