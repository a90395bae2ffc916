"""Compiled loops for training on a CPU: what a matrix library does not do, in one pass over memory each.

Matrix products stay with torch. A profile of a distillation step showed that with students this narrow they are less
than half of it; the rest were hundreds of small passes over padded tensors. Each kernel here replaces a dozen of them
and reads packed tokens, so that padding is never computed. All release Python's global lock, use one thread each and
have no state, so that several parts of a batch can run side by side. Numbers are float32 with bfloat16 or float32 in
memory, or float64 throughout, in which the kernels are checked against plain torch. Imported by modeling and training.
"""
