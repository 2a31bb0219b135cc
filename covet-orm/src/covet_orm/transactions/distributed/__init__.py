"""Two-phase commit: one transaction in several databases, committed in all of them or in none.

Presumed abort (C. Mohan, B. Lindsay, R. Obermarck: Transaction Management in the R* Distributed Database Management
System, ACM TODS 11(4), 1986), where the database of the log commits last: its own changes and the decision are one
commit.
"""
