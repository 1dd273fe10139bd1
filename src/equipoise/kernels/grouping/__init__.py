"""Which expert groups share a node, by trying all ways. The contract of all implementations.

    choose(load, sets, set_of_node, ranks_per_node, slots_per_node) -> chosen, bound

``load`` float64 [layers, experts]; ``sets`` int64 [sets, groups a node], the groups that may share a node, ascending;
``set_of_node`` int64 [groupings, nodes], one row for each way to put equally many groups on each node, up to the names
of the nodes. ``chosen`` int64 [layers] is the row whose busiest node promises least; of equal ones that with the
least mean rank load on its fullest node, then the first. ``bound`` float64 [layers] is what it promises: the largest
over its nodes of max(mean rank load, t*), in tokens. No placement that keeps groups whole has a less busy rank.
"""
