"""Space groups, Wyckoff positions, and conversion between full cells and `Crystals`."""
