"""What the busiest rank carries, layer by layer. The contract of all implementations.

    busiest(physical_to_logical, load, num_ranks) -> tokens

``physical_to_logical`` int32 [layers, slots], ``load`` float64 [layers, experts]; ``tokens`` float64 [layers]. Every
replica of an expert carries load / replica count. A layer is infinite where the table is no placement to hold on to:
where a slot is empty or holds no expert of the load, an expert has no slot, or a rank holds one twice.
"""
