"""What all HTML pages share: one shell, one look in light and dark, tables and figures that follow it."""
