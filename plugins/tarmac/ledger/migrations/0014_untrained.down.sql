DROP TABLE untrained_run;
