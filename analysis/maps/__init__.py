"""Everything on the axes of the search space: heatmaps, differences, sample atlas, theory."""
