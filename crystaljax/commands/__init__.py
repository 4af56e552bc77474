"""The commands of `crystaljax`, one file each; what is heavy is imported when they run."""
