-- What the provider has made is found by its label, and ended, by the version that knows these tables.
DROP TABLE machine_kind;
DROP TABLE machine;
