"""The engine `hf`: a `transformers` model decodes in the process that trains or evaluates it."""
