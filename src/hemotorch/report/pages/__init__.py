"""What all HTML pages share: one shell, one look in light and dark, tables and figures that follow it.

figures    figures as SVG that follow the page's colours
html       the shell of every page, tables, facts, numbers for reading
page.html  the template of the shell
"""
