"""`headwater doctor`: what is missing, occupied or unsafe on this machine, and how to mend each.

Every check is a function from what was read to a `Check`; what reads the machine is handed in or stands beside it.
"""
