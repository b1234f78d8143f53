"""What both reports share: the page, charts, the palette, wording."""
