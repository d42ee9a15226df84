"""The service: a page and an HTTP API to teach, try and correct a classifier in a folder.

Needs the extra ``serve``. `app.create_app` makes the application, `run.serve` runs it as a process.
"""
