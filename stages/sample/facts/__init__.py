"""The fact tables as tab-separated files: one row an entity, one column a relation.

Drugs, diseases, organisms and countries are real; the companies are invented, and so are their towns and people.

The column ``also`` lists, separated by semicolons, further attributes that are true of the row in any relation. Nothing
is generated from them; they keep a true statement from being offered as a wrong option or denied in a question.
"""
