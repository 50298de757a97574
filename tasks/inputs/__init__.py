"""From the name of a prompt file to bytes on this machine: paths, revisions, objects, built-in sets, SmolLM2."""
