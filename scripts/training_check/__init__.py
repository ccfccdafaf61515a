"""The parts of scripts/check_training.py."""
