"""The database `tarmac`: all of its SQL, its connections and its migrations."""
