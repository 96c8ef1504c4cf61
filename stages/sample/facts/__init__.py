"""The fact tables as tab-separated files: one row a drug, a disease or an organism, one column a relation.

The column ``also`` lists, separated by semicolons, further attributes that are true of the row in any relation. Nothing
is generated from them; they keep a true statement from being offered as a wrong option or denied in a question.
"""
