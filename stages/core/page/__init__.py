"""The report's page and its summary: read what the stages wrote, compare, say it in two languages, draw it."""
