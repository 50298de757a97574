"""Work that runs in a process of its own: warm start, prior, epoch, evaluation. A crash here takes nobody along."""
