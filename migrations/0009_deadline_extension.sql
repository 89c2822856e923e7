-- A deadline is moved once, for a payment that the provider is still working on.
ALTER TABLE orders ADD COLUMN extended_at timestamptz;
