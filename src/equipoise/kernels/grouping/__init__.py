"""Which expert groups share a node, by trying all ways. The contract.

    choose(load, table, num_nodes, ranks_per_node, slots_per_node) -> chosen, bound

``load`` float64 [layers, experts]; ``table`` int32 [groupings, groups], the node of each group, one row for each way to
put equally many groups on each node, up to the names of the nodes. ``chosen`` int64 [layers] is the row whose busiest
node promises least, ties to the first; ``bound`` float64 [layers] is what it promises: the largest over its nodes of
max(mean rank load, t*), in tokens. No placement that keeps groups whole has a less busy rank.
"""
