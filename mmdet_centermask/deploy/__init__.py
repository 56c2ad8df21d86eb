"""A trained network outside of PyTorch: see docs/deployment.md.

Needs the packages of the extra `export`.
"""
