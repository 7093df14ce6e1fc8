"""Pictures that explain units: sheets, tiles, inputs made for them, projections, filters."""
