"""What Power instructions and registers are: fields, forms, decode tables, meanings; imports no other package."""
