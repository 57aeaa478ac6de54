"""Command ``report``: reads run folders and writes one page; one file for each part of the page."""
