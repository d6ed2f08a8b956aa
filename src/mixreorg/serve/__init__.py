"""The server: a page and an HTTP API over one model, which lives in a process of its own.

Files import only files listed above them: ``limits``, ``answers``, ``views``, ``worker``, ``model_process``,
``metrics``, ``batching``, ``service``, ``guard``, ``schema``, ``app``, ``page``, ``run``. Only ``worker`` loads torch,
inside the process of the model.
"""
