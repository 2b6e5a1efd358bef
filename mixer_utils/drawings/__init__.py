"""The notebooks' own figures, a module for each notebook: a cell says what is drawn, and here stands how.

Every function returns a Picture with its alt text. What several notebooks draw is in ``plotting``.
"""
