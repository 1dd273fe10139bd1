"""What strangers' files hold, as plain values: the only room that opens one.

A file is opened only if it is ordinary, what it declares is held to its size and to ``equipoise.limits`` before memory
is taken, and nothing that it names is run. What the values mean is for whoever asks: a load, a placement, a plan.

==================  =================================================================================
file                idea
==================  =================================================================================
``source.py``       opening, and one sentence for whatever stops the reading
``json.py``         JSON, weighed before it is parsed
``yaml.py``         YAML: lists and objects of plain whole numbers and texts, and nothing else of it
``numpy.py``        a .npy array, by its header
``pieces.py``       .npy and .npz arrays that are larger than memory, some rows at a time
``archive.py``      zip files, and how much a member may unpack to
``pickle.py``       the part of a pickle that builds plain values
``torch.py``        .pt files, with arrays for their tensors
``safetensors.py``  .safetensors files, by their header
``columns.py``      Parquet and Arrow files, by pyarrow where it is installed
``tables.py``       lists of lists as arrays, where a document has them
==================  =================================================================================
"""
