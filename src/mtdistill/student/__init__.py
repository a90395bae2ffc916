"""Student models: what they keep of the teacher, and their first weights."""
