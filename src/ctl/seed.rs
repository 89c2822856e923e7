//! A small demo shop, for developers.

use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Outcome, user};
use crate::{
    audit::Actor,
    catalog::{
        self, CatalogError, Description, NewProduct, NewVariant, Product, Sale, Sku, Slug, Title,
    },
    idempotency::Key,
    identity::{self, Hasher, IdentityError, Password, Role},
    inventory::{ReceiveStock, receive_stock},
    kernel::{EmailAddress, Money, UserId},
};

/// The demo's logins, which everybody can read here.
const LOGINS: [(&str, &str, Role); 2] = [
    ("admin@holdfast.test", "holdfast-demo-admin", Role::Admin),
    ("shopper@example.com", "holdfast-demo-shopper", Role::Customer),
];

/// What is on the shelf of each variant at first.
const UNITS: i64 = 100;

struct DemoProduct {
    slug: &'static str,
    title: &'static str,
    description: &'static str,
    /// The SKU's beginning; each variant appends its own part.
    sku: &'static str,
    usd_minor: i64,
    inr_minor: i64,
    /// The part of the SKU and the title of each variant.
    variants: &'static [(&'static str, &'static str)],
}

const SIZES: &[(&str, &str)] =
    &[("S", "Small"), ("M", "Medium"), ("L", "Large"), ("XL", "Extra large")];
const ONE: &[(&str, &str)] = &[("STD", "Standard")];

const fn product(
    slug: &'static str,
    title: &'static str,
    description: &'static str,
    sku: &'static str,
    (usd_minor, inr_minor): (i64, i64),
    variants: &'static [(&'static str, &'static str)],
) -> DemoProduct {
    DemoProduct { slug, title, description, sku, usd_minor, inr_minor, variants }
}

const PRODUCTS: [DemoProduct; 20] = [
    product(
        "harbour-mug",
        "Harbour mug",
        "Stoneware, 350 ml, dishwasher safe.",
        "MUG-HRB",
        (1800, 149_900),
        &[("BLU", "Deep blue"), ("SND", "Sand"), ("BLK", "Black")],
    ),
    product(
        "anchor-tee",
        "Anchor T-shirt",
        "Organic cotton, printed by hand.",
        "TEE-ANC",
        (2900, 189_900),
        SIZES,
    ),
    product(
        "deckhand-sweater",
        "Deckhand sweater",
        "Merino wool, knitted in one piece.",
        "SWT-DCK",
        (11_900, 849_900),
        SIZES,
    ),
    product(
        "watch-cap",
        "Watch cap",
        "Ribbed wool against the wind.",
        "CAP-WTC",
        (2400, 169_900),
        &[("NVY", "Navy"), ("RUS", "Rust")],
    ),
    product(
        "oilskin-jacket",
        "Oilskin jacket",
        "Waxed cotton that lasts for decades.",
        "JKT-OIL",
        (24_900, 1_899_900),
        SIZES,
    ),
    product(
        "canvas-duffel",
        "Canvas duffel",
        "40 litres, waxed canvas, brass fittings.",
        "BAG-DUF",
        (13_900, 999_900),
        &[("OLV", "Olive"), ("NAT", "Natural")],
    ),
    product(
        "chart-notebook",
        "Chart notebook",
        "Dotted, 192 pages, lies flat.",
        "NTB-CHT",
        (1600, 119_900),
        &[("A5", "A5"), ("A6", "A6")],
    ),
    product(
        "brass-compass",
        "Brass compass",
        "Liquid filled, with a lanyard.",
        "CMP-BRS",
        (5900, 449_900),
        ONE,
    ),
    product(
        "storm-lantern",
        "Storm lantern",
        "Burns 20 hours on one filling.",
        "LNT-STM",
        (4400, 329_900),
        &[("RED", "Red"), ("ZNC", "Zinc")],
    ),
    product(
        "galley-knife",
        "Galley knife",
        "20 cm carbon steel, walnut handle.",
        "KNF-GLY",
        (8900, 679_900),
        ONE,
    ),
    product(
        "enamel-kettle",
        "Enamel kettle",
        "1.5 litres, for any stove.",
        "KTL-ENM",
        (4900, 369_900),
        &[("WHT", "White"), ("BLU", "Blue")],
    ),
    product(
        "coffee-beans",
        "Night watch coffee",
        "Dark roast, whole beans.",
        "COF-NGT",
        (1500, 109_900),
        &[("250", "250 g"), ("1000", "1 kg")],
    ),
    product(
        "rope-leash",
        "Rope leash",
        "Braided climbing rope, 1.5 m.",
        "LSH-ROP",
        (3200, 239_900),
        &[("ORG", "Orange"), ("GRY", "Grey")],
    ),
    product(
        "linen-apron",
        "Linen apron",
        "Cross back, two pockets.",
        "APR-LIN",
        (5400, 409_900),
        ONE,
    ),
    product(
        "wool-blanket",
        "Wool blanket",
        "Recycled wool, 140 x 200 cm.",
        "BLK-WOL",
        (9900, 749_900),
        &[("CHK", "Checked"), ("PLN", "Plain")],
    ),
    product(
        "deck-shoes",
        "Deck shoes",
        "Leather, with a sole that does not mark.",
        "SHO-DCK",
        (12_900, 949_900),
        &[("40", "EU 40"), ("42", "EU 42"), ("44", "EU 44")],
    ),
    product(
        "signal-flags",
        "Signal flags",
        "The alphabet in cotton, 26 pieces.",
        "FLG-SIG",
        (7900, 599_900),
        ONE,
    ),
    product(
        "tide-clock",
        "Tide clock",
        "Shows high and low water.",
        "CLK-TID",
        (14_900, 1_099_900),
        ONE,
    ),
    product(
        "beeswax-candle",
        "Beeswax candle",
        "Burns 40 hours, smells of summer.",
        "CND-BEE",
        (2100, 159_900),
        &[("S", "Small"), ("L", "Large")],
    ),
    product(
        "sailors-soap",
        "Sailor's soap",
        "Lathers in salt water.",
        "SOP-SLR",
        (900, 69_900),
        &[("SEA", "Seaweed"), ("TAR", "Pine tar")],
    ),
];

/// Adds what is missing of the demo shop; prints the logins and, as its last line, an offer as JSON.
pub(super) async fn run(db: &PgPool) -> Outcome {
    let admin = log_ins(db).await?;
    let actor = Actor { id: admin, request_id: None };
    let mut added = 0;
    for demo in &PRODUCTS {
        match catalog::create_product(db, new_product(demo)?, actor.clone()).await {
            Ok(product) => {
                receive(db, &product, admin).await?;
                added += 1;
            }
            Err(CatalogError::SlugTaken) => {}
            Err(error) => return Err(error.into()),
        }
    }
    println!("{added} products added, {} in all", PRODUCTS.len());
    for (email, password, role) in LOGINS {
        println!("{}: {email} / {password}", role.as_str());
    }
    let first = &PRODUCTS[0];
    let product = catalog::find_product(db, &Slug::parse(first.slug)?).await?;
    let variant = product.variants.first().ok_or("the first product has no variant")?;
    println!(
        "{}",
        json!({
            "variant_id": variant.id.uuid(),
            "sku": variant.sku,
            "amount": first.usd_minor,
            "currency": "USD",
        })
    );
    Ok(true)
}

/// Adds the logins that are missing; returns the admin.
async fn log_ins(db: &PgPool) -> Result<UserId, Box<dyn std::error::Error>> {
    let hasher = Hasher::new(1);
    for (email, password, role) in LOGINS {
        let email = EmailAddress::parse(email)?;
        let password = Password::parse(password)?;
        match user::create(db, &hasher, email, password, role).await {
            Ok(_) | Err(IdentityError::EmailTaken) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let (email, password, _) = LOGINS[0];
    let admin = identity::authenticate(
        db,
        &hasher,
        &EmailAddress::parse(email)?,
        Password::parse(password)?,
    )
    .await?;
    Ok(admin.id)
}

fn new_product(demo: &DemoProduct) -> Result<NewProduct, Box<dyn std::error::Error>> {
    let prices = vec![
        Money::new(demo.usd_minor, "USD".parse()?)?,
        Money::new(demo.inr_minor, "INR".parse()?)?,
    ];
    let variants = demo
        .variants
        .iter()
        .map(|(part, title)| {
            Ok(NewVariant {
                sku: Sku::parse(&format!("{}-{part}", demo.sku))?,
                title: Title::parse(title)?,
                prices: prices.clone(),
                sale: Sale::default(),
            })
        })
        .collect::<Result<_, Box<dyn std::error::Error>>>()?;
    Ok(NewProduct {
        slug: Slug::parse(demo.slug)?,
        title: Title::parse(demo.title)?,
        description: Description::parse(demo.description)?,
        variants,
    })
}

async fn receive(
    db: &PgPool,
    product: &Product,
    staff_id: UserId,
) -> Result<(), Box<dyn std::error::Error>> {
    for variant in &product.variants {
        let receipt = ReceiveStock {
            receipt_id: Uuid::now_v7(),
            variant_id: variant.id,
            quantity: UNITS,
            staff_id,
            key: Key::parse(Some(&format!("seed-{}-{}", variant.sku, variant.id)))?,
            request_id: None,
        };
        receive_stock(db, &receipt).await?;
    }
    Ok(())
}
