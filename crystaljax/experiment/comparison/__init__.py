"""The comparison of tokenizations: equal cores, budgets, data, runs and tables."""
