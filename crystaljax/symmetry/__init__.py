"""Space groups, Wyckoff positions, and the way between full cells and `Crystals`."""
