"""Reports as one HTML file each: no script, nothing from elsewhere, light and dark, readable on a phone and on paper.

====================  =======================================================================
file                  idea
====================  =======================================================================
``html.py``           the page: headings, tables, pictures with their texts
``pictures.py``       pictures as SVG whose colours are the page's, drawn with matplotlib
``charts.py``         the kinds of picture: lines, bars, heat map, scatter
====================  =======================================================================

They take plain numbers: what a plan or a replay shows on its page stands in its own room.
"""
