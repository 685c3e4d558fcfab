"""Instructions: their declarations, their text, and what they do by formulas of the book."""
