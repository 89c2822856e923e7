//! Postal addresses as they travel.

use poem_openapi::Object;
use serde::{Deserialize, Serialize};

use crate::kernel::Detail;

/// Where the parcel goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Object)]
#[oai(rename = "Address", deny_unknown_fields)]
pub struct AddressBody {
    #[oai(validator(min_length = 1, max_length = 200))]
    pub name: String,
    #[oai(validator(min_length = 1, max_length = 200))]
    pub line1: String,
    #[oai(validator(max_length = 200))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line2: Option<String>,
    #[oai(validator(min_length = 1, max_length = 100))]
    pub city: String,
    #[oai(validator(max_length = 100))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[oai(validator(max_length = 20))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// Two capital letters of ISO 3166-1.
    #[oai(validator(min_length = 2, max_length = 2))]
    pub country: String,
    #[oai(validator(max_length = 30))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

impl AddressBody {
    /// Everything that is wrong with the address beyond its lengths; `pointer` is where in the request it
    /// stands (`/shipping_address`).
    pub fn problems_at(&self, pointer: &str) -> Vec<Detail> {
        let problem = |field: &str, code, message: &str| Detail {
            pointer: format!("{pointer}/{field}"),
            code,
            message: message.to_owned(),
            available: None,
        };
        let texts = [
            ("name", Some(&self.name)),
            ("line1", Some(&self.line1)),
            ("line2", self.line2.as_ref()),
            ("city", Some(&self.city)),
            ("region", self.region.as_ref()),
            ("postal_code", self.postal_code.as_ref()),
            ("phone", self.phone.as_ref()),
        ];
        let mut problems: Vec<_> = texts
            .into_iter()
            .filter(|(_, text)| text.is_some_and(|text| text.chars().any(char::is_control)))
            .map(|(field, _)| problem(field, "invalid-text", "control characters are not allowed"))
            .collect();
        if !self.country.bytes().all(|byte| byte.is_ascii_uppercase()) {
            let message = "a country is two capital letters of ISO 3166-1";
            problems.push(problem("country", "unknown-country", message));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_named_where_it_stands() {
        let address = AddressBody {
            name: "Ada\r\nBcc: all@example.com".to_owned(),
            line1: "1 Road".to_owned(),
            line2: Some("Flat\0".to_owned()),
            city: "Pune".to_owned(),
            region: None,
            postal_code: None,
            country: "in".to_owned(),
            phone: None,
        };

        let problems = address.problems_at("/address");

        let problems: Vec<_> =
            problems.iter().map(|problem| (problem.pointer.as_str(), problem.code)).collect();
        assert_eq!(
            problems,
            [
                ("/address/name", "invalid-text"),
                ("/address/line2", "invalid-text"),
                ("/address/country", "unknown-country"),
            ]
        );
    }
}
