"""How JSON is spelt in tests that compare it as text."""


def spell(json: str) -> str:
    """Return *json* with line ends of Unicode escaped, as Gemini's streams spell them for clients in JavaScript."""
    return json.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
