-- Which of its keys a refund is asked for with: a provider may keep a failure under a key for a day.
ALTER TABLE refunds ADD COLUMN key_generation integer NOT NULL DEFAULT 1;
