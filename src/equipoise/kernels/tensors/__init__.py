"""What surrounds the packing kernel, on tensors: for weights that live on a device and should not leave it.

Every function returns, bit for bit, what its counterpart on numpy arrays returns: ``to_fixed_point`` that of
``equipoise.fixed_point``, ``replicate`` that of ``equipoise.kernels.replication``, ``pack`` that of
``equipoise.packing.pack_items``. None waits for the device.
"""
