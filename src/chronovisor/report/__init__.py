"""Traces, tables and plots."""
