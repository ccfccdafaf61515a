"""The parts of scripts/check_attention.py."""
