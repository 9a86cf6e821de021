"""The HTTP surface: one module per family of endpoints, each read → call → answer."""
