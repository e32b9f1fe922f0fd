"""Edit memory: facts kept beside the model, found again by retrieval, and used in context.

The truth is the SQL table behind :class:`memory.store.FactStore`; the FAISS index is derived from it. A
:class:`memory.gate.Gate` decides whether a question is in the scope of a stored fact, and a
:class:`memory.router.Router` hands it to a strategy (IKE, MeLLo, ...) or to the plain model.
"""
