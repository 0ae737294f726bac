"""What is read in a browser: the report of an evaluation, the page of a study, the list of all studies.

run_report       measures a run's best network, and writes all that a report leaves
evaluation_page  the page of one evaluation
plots            its plots as SVG, and pictures of scans
study_pictures   a study's slices as JPEG, its outlines, and the slices to look at first
study_page       the page of one study
study_files      a study's page and thumbnail as files
index_page       the list of studies as HTML
study_table      the list of studies as CSV
study_list       index.html and studies.csv of a folder, written anew as studies come
predict_studies  what `hemotorch predict` does: predictions, their pages, and the list
pages/           what all HTML pages share
"""
