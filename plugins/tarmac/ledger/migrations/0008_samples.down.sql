DROP TABLE session_usage;
DROP TABLE session_sample;
DROP TABLE device_sample;
