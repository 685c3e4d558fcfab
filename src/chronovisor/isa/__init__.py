"""What Power instructions and registers are: fields, forms, decode tables, meanings. Imports no package."""
