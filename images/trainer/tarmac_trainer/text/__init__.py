"""What the models of text share: tokens, entities and mentions on a line, spaCy pipelines, and how they are scored."""
