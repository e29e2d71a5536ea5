-- Machines whose engines listen with TLS (docs/decisions/0032): until when the certificate of each is valid.
ALTER TABLE host ADD COLUMN certificate_ends timestamptz;
