"""The HTTP chain. A middleware looks at headers and admits, refuses or labels; it never owns a body."""
