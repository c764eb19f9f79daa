"""Break the system on purpose and see whether the checks notice: the detection power of the harness.

`catalogue` reads the defects, `tree` puts one into a copy of the checkout, `trial` runs the copy, `judging` says what
its report makes of it, `campaign` goes through many, `detection` keeps the result in reports/detection.json.
"""
