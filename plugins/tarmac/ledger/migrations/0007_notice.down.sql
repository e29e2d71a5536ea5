DROP TABLE notifier;
DROP TABLE delivery;
DROP TABLE notice;
