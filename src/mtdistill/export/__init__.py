"""A model in the forms that other programs read.

Imported by cli, distillation and mtdistill; imports data, decoding, evaluation, modeling, report and student.
"""
