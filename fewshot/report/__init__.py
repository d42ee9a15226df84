"""Reports: self-contained HTML pages and the figures on them.

Start at `page` (`Page`), which is built part by part. `figures` draws what goes on it;
``style.css`` is its style sheet.
"""
