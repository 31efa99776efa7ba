"""Examinations that say beforehand what a platform would refuse: one module a subject, all of one shape.

A subject offers SUMMARY and EXAMPLE, `add_arguments(parser)`, and `examine(args)`, which calls its
`check(path, …) -> list[Finding]`.
"""
