-- One row is something the shop presents on a page of its own.
CREATE TABLE products (
    id uuid CONSTRAINT products_pk PRIMARY KEY,
    slug text NOT NULL,
    title text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT products_slug_shape CHECK (slug ~ '^[a-z0-9]+(-[a-z0-9]+)*$' AND length(slug) <= 100),
    CONSTRAINT products_title_length CHECK (length(title) BETWEEN 1 AND 200),
    CONSTRAINT products_description_length CHECK (length(description) <= 20000)
);

CREATE UNIQUE INDEX products_slug_unique ON products (slug);

-- One row is what a shopper can buy: a size, a colour, an edition of a product.
CREATE TABLE variants (
    id uuid CONSTRAINT variants_pk PRIMARY KEY,
    product_id uuid NOT NULL CONSTRAINT variants_product_fk REFERENCES products,
    sku text NOT NULL,
    title text NOT NULL,
    position integer NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT variants_sku_shape CHECK (sku ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    CONSTRAINT variants_title_length CHECK (length(title) BETWEEN 1 AND 200),
    CONSTRAINT variants_position_unique UNIQUE (product_id, position)
);

-- A SKU names one variant in the whole shop, whatever its case.
CREATE UNIQUE INDEX variants_sku_unique ON variants (upper(sku));

-- One row is what a variant costs in one currency. No row: it is not for sale in that currency.
CREATE TABLE prices (
    variant_id uuid NOT NULL CONSTRAINT prices_variant_fk REFERENCES variants,
    currency text NOT NULL,
    amount_minor bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT prices_pk PRIMARY KEY (variant_id, currency),
    CONSTRAINT prices_currency_shape CHECK (currency ~ '^[A-Z]{3}$'),
    CONSTRAINT prices_amount_range CHECK (amount_minor BETWEEN 0 AND 1000000000000)
);
