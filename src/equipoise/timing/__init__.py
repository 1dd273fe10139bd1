"""Planning in time: which replicas are active, and where. The contract."""
