"""A fuzzer of page tables and of translated programs.

`worlds` draws them, `course` runs them on native code and on a concrete evaluator that `checked` checks, and
`hunt` does so in a process of its own, which native code may crash. To run it by itself, from the folder
`tests`: `python -m engine.translated FIRST_SEED COUNT`.
"""
