"""The device check: proofs and measurements on an accelerator, in one command."""
