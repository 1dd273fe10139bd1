"""Inside the serving engines: the only room that knows them.

=====================  ==================================================================================
file                   idea
=====================  ==================================================================================
``settings.py``        what the environment says to a plug-in
``planning.py``        from an engine's counts and its placement in force to the next one
``planner.py``         what a plug-in does with each call: plan, keep the load, say what came of it
``sentences.py``       what it says in the log
``windows.py``         steps or calls as windows of load
``record.py``          the loads that it keeps
``leader.py``          which of the processes says and keeps that
``warming.py``         compile what a plug-in calls before an engine waits for it
``layered.py``         a placement as files have it: with the model's layer ids
``vllm.py``            plug-in: takes the place of vLLM's default policy; ``vllm_shares.py``, its door for shares
``sglang.py``          plug-in: takes the place of SGLang's ``rebalance_experts``; ``sglang_shares.py``
``vllm_ascend.py``     a policy for vLLM-Ascend, and its expert maps; ``vllm_ascend_shares.py``
``tensorrt_llm.py``    load-balancer YAML and statistics folders
``omni_infer.py``      0/1 patterns
``sglang_maps.py``     static maps for ``--init-expert-location``
``hygon.py``           HYGON's maps, which say what each slot gets
``load_files.py``      writers of loads; ``equipoise.load`` reads them
``deepseek.py``        the three tensors of the published signature
``formats.py``         the table of files, and how they are told apart
=====================  ==================================================================================

Importing a plug-in imports neither the engine, torch nor numba: that waits until the engine calls it.
"""
