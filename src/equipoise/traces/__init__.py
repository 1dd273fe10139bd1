"""Traces, and what planners would have made of them: ``equipoise.replay``.

====================  =======================================================================
file                  idea
====================  =======================================================================
``trace.py``          the noun: recorded steps, read in pieces
``trace_files.py``    the table of files and folders that hold a trace
``long_csv.py``       steps from a table with a line for each count
``sglang_tokens.py``  SGLang's recordings of single tokens
``windows.py``        steps joined to windows, some at a time
``settings.py``       what is asked: planners, slots, how often, how much may move
``planners.py``       the table of planners, ours, the engines' and the ceiling
``engine_planners.py``  the engines' own, called as they call them
``lanes.py``          one setting on its way through a trace
``score.py``          single steps by a dispatch rule
``walk.py``           all settings side by side
``recommend.py``      which setting, how sure, and the flags for it
``result.py``         what comes of it, a noun
``outcome.py``        from what a walk recorded to that
``summary.py``        a replay in lines, ``page.py`` as a page
``drift.py``          how a load drifts, ``drift_page.py`` as a page
``replay.py``         ``equipoise.replay``: from arguments to the result
====================  =======================================================================
"""
