"""Evaluation of proposed alloys: metrics, the table of models, figures."""
