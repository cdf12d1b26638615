"""Which layer computes in which precision, by an exact programme over a table of what each costs and loses."""
