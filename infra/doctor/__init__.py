"""`headwater doctor`: what is missing, in use or unsafe on this machine, and how to fix it.

A check is a function from values to a `Check`. What reads those values from the machine is passed in, or is a separate
function beside it.
"""
