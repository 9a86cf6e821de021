"""From the name of a model to the upstreams that serve it."""
