"""A model in the forms that other programs read.

Imported by distillation and the command line; imports decoding, modeling, files, messages, errors.
"""
