"""The methods of the paper's Table 1, trained and judged side by side."""
