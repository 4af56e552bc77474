"""What proposed alloys are worth: metrics, the table of models, figures."""
