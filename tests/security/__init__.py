"""What a malicious trainer, and each role, can do. A package, so that a fixture can last as long as its tests."""
