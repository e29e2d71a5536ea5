-- Three databases, each owned by a login of the same name that reaches no other one.
-- PostgreSQL's image runs this once, when its volume is new; to run it again does no harm.
-- The passwords come from the container's environment.

\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv tarmac_password TARMAC_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD

\if :{?airflow_password} \else \set airflow_password '' \endif
\if :{?tarmac_password} \else \set tarmac_password '' \endif
\if :{?mlflow_password} \else \set mlflow_password '' \endif

-- passwords stay out of the server's log, also when a statement fails
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
SET password_encryption = 'scram-sha-256';

CREATE TEMPORARY TABLE wanted (name text, variable text, password text);
INSERT INTO wanted VALUES
    ('airflow', 'AIRFLOW_DB_PASSWORD', :'airflow_password'),
    ('tarmac', 'TARMAC_DB_PASSWORD', :'tarmac_password'),
    ('mlflow', 'MLFLOW_DB_PASSWORD', :'mlflow_password');

DO $$
DECLARE missing text := (SELECT string_agg(variable, ', ') FROM wanted WHERE password = '');
BEGIN
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'no value for % in the environment of the postgres container', missing
            USING HINT = 'They are in env/postgres.env; "make up" writes that file.';
    END IF;
END $$;

SELECT format('CREATE ROLE %I', name) FROM wanted
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
\gexec

SELECT format('ALTER ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD %L', name, password)
FROM wanted
\gexec

SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM wanted
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name)
\gexec

-- by default every login may connect to every database; owners keep their own right to
SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', datname) FROM pg_database
WHERE datname <> 'template0'
\gexec
