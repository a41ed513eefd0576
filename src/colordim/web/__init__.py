"""The viewer: one page for the browser, the report and the notebook, and what answers its questions."""
