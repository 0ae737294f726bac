"""Scores and training curves -> one self-contained HTML page.

run_report       measures a run's best network, and writes all that a report leaves
evaluation_page  the page of one evaluation
plots            its plots as SVG, and pictures of scans
pages/           what all HTML pages share
"""
