"""A training request: its schema, the catalogue of models, the API guard, the data set store."""
